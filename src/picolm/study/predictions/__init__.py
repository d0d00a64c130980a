"""One file per kind of prediction; importing this package registers them all."""

from picolm.study.predictions import (
    curve as curve,
)
from picolm.study.predictions import (
    difference as difference,
)
from picolm.study.predictions import (
    equivalence as equivalence,
)
from picolm.study.predictions import (
    events as events,
)
from picolm.study.predictions import (
    invariant as invariant,
)
from picolm.study.predictions import (
    order as order,
)
from picolm.study.predictions import (
    shape as shape,
)
from picolm.study.predictions import (
    tokens as tokens,
)
from picolm.study.predictions import (
    trend as trend,
)
