"""How repositories, branches, tags and commits are named: ours, the original trainer's, and those of Pythia and OLMo."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from picolm.base.errors import PicoError
from picolm.records.rundir import check_run_name

REPO_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
REVISION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}\Z")
COLLECTION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")

CHECKPOINT_TITLE = re.compile(r"^Checkpoint -- Step (\d{1,15})\Z")
RESULTS_TITLE = "Results"
PAGE_TITLE = "Runs of this repository"
MAIN = "main"

ORIGINAL_TITLE = re.compile(
    r"^Saving (HF Model|Fabric Checkpoint|Learning Dynamics Data \((?:train|val)\)|Evaluation Results|Tokenizer|Training Config"
    r"|Logs) -- Step (\d{1,15})\Z"
)
"""Commit titles of the original trainer: what was saved, and the step."""

STEP_REVISION = re.compile(r"^(?P<before>|.*[-_])(?:step|global_step|iter|checkpoint)[-_]?(?P<step>\d{1,15})(?P<after>|[-_].*)\Z")
"""Branches or tags that are one step each: `step1000`, `stage1-step1000-tokens5B`, `global_step1000`."""

TOKENS_IN_REVISION = re.compile(r"tokens?[-_]?(\d+(?:\.\d+)?)([KMBT]?)(?:$|[-_])", re.IGNORECASE)

PATH_PIECE = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}\Z")

DATA_ENDINGS = (".safetensors", ".json", ".jsonl", ".parquet", ".yaml", ".txt", ".md", ".png", ".model")
"""Files that are data: nothing in them is ever run. Anything else is not written to disk."""

RESERVED = ("main", "HEAD", "refs")


def check_repo_id(repo_id: str, setting: str = "repository") -> str:
    """`repo_id`, if it is `owner/name`; PicoError otherwise."""
    if not REPO_ID.match(repo_id) or ".." in repo_id or "--" in repo_id or repo_id.endswith((".git", ".", "-")):
        raise PicoError(f"{setting} = {repo_id!r} is not a repository of the Hub", "write it as owner/name")
    return repo_id


def check_revision(revision: str) -> str:
    """`revision`, if it can be a branch, a tag or a commit; PicoError otherwise."""
    if not REVISION.match(revision) or ".." in revision or "//" in revision or revision.endswith((".lock", "/", ".")):
        raise PicoError(
            f"{revision!r} is not the name of a branch, a tag or a commit", "letters, digits, dot, dash, underscore, slash"
        )
    return revision


def check_collection(slug: str) -> str:
    """`slug`, if it is `owner/title-id`; PicoError otherwise."""
    if not COLLECTION.match(slug) or ".." in slug:
        raise PicoError(
            f"checkpointing.hf_checkpoint.collection_slug = {slug!r} is not a collection", "write it as owner/title-id"
        )
    return slug


def branch_of(run_name: str) -> str:
    """The branch that a run is published on: its own name, if no tag or commit can be taken for it."""
    check_run_name(run_name)
    if run_name in RESERVED or re.search(r"-step-\d+$", run_name) or re.fullmatch(r"[0-9a-f]{40}", run_name):
        raise PicoError(
            f"a run called {run_name!r} cannot be published: the name means something else on the Hub", "rename its folder"
        )
    return run_name


def tag_of(run_name: str, step: int) -> str:
    """The tag of one step: what other tools write as `revision`."""
    return f"{run_name}-step-{step}"


def title_of(step: int) -> str:
    """The title of the commit that publishes a step."""
    return f"Checkpoint -- Step {step}"


def step_of_revision(revision: str) -> int | None:
    """The step in the name of a branch or tag; None if it names none."""
    found = STEP_REVISION.match(revision)
    return int(found["step"]) if found else None


def family_of_revision(revision: str) -> str:
    """What is left of such a name without step and tokens: `stage1-step1000-tokens5B` -> `stage1-`."""
    found = STEP_REVISION.match(revision)
    return found["before"] if found else ""


def tokens_of_revision(revision: str) -> int | None:
    """Training tokens that a branch name tells: `step1000-tokens4B` -> 4,000,000,000."""
    found = TOKENS_IN_REVISION.search(revision)
    if found is None:
        return None
    return int(float(found[1]) * {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}[found[2].upper()])


def check_paths(paths: list[str], source: str, endings: tuple[str, ...] = DATA_ENDINGS) -> list[str]:
    """`paths`, if each is relative, plain and data, and no two are one on a file system that ignores case."""
    seen: dict[str, str] = {}
    for path in paths:
        pieces = path.split("/")
        if not all(PATH_PIECE.match(piece) and ".." not in piece for piece in pieces):
            raise PicoError(
                f"{source} names a file that may not be written: {path!r}", "only plain names below the folder are taken"
            )
        if PurePosixPath(path).suffix not in endings:
            raise PicoError(f"{source} lists {path!r}, which is not data", f"taken are {', '.join(endings)}")
        folded = path.casefold()
        if folded in seen:
            raise PicoError(f"{source}: {seen[folded]!r} and {path!r} are one file where case is ignored")
        seen[folded] = path
    return paths
