from picolm.report.panels.contract import Missing, Panel, Table, panel
from picolm.report.tables import ReportData


@panel("last_rows")
def last_rows(data: ReportData, *, rows: int = 3) -> Panel:
    """The last rows of each run's log, as a table."""
    definition = "The loss is the mean over the tokens of the step, in nats; the step counts updates made."
    blocks = []
    for run in data.runs:
        if run.log.empty or "loss" not in run.log.columns:
            blocks.append(Missing(f"{run.name} has logged nothing yet."))
            continue
        last = run.log.tail(rows)
        shown = tuple((str(int(step)), f"{loss:.4f}") for step, loss in zip(last["step"], last["loss"], strict=True))
        blocks.append(Table(("step", "loss"), shown, caption=f"Last rows of {run.name}"))
    return Panel("Last rows", "Where each run stands.", definition, tuple(blocks))
