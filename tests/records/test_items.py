"""Single items of an evaluation on disk."""

from picolm.records.items import ItemValues, read_items, write_items
from picolm.records.rundir import RunDirectory


def test_items_come_back_as_they_were_written(tmp_path):
    run = RunDirectory(tmp_path)
    items = ItemValues("loss_per_token", [1.5, 2.25], weights=[10.0, 20.0])
    write_items(run, 600, "perplexity", items)
    assert read_items(run, 600, "perplexity") == items
    pairs = ItemValues("accuracy", [1.0, 0.0, 1.0], clusters=["drop_argument", "drop_argument", "causative"])
    write_items(run, 600, "minimal_pairs", pairs)
    assert read_items(run, 600, "minimal_pairs") == pairs
    assert read_items(run, 600, "blimp") is None


def test_items_are_not_taken_for_scores(tmp_path):
    run = RunDirectory(tmp_path)
    write_items(run, 600, "perplexity", ItemValues("accuracy", [1.0]))
    assert run.evaluated_steps() == []


def test_items_written_again_replace_the_older_ones(tmp_path):
    run = RunDirectory(tmp_path)
    write_items(run, 600, "blimp", ItemValues("accuracy", [1.0, 0.0]))
    write_items(run, 600, "blimp", ItemValues("accuracy", [0.0, 1.0]))
    assert read_items(run, 600, "blimp") == ItemValues("accuracy", [0.0, 1.0])
