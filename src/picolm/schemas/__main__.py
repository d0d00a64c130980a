"""Write the schemas that are shipped, with the built-in names: `python -m picolm.schemas`, or `make schemas`."""

from __future__ import annotations

from picolm.schemas.build import SHIPPED, write_schemas

if __name__ == "__main__":
    for path in write_schemas(SHIPPED, "built-in"):
        print(f"wrote {path}")
