"""What is on disk: run folder, names, manifests, snapshots, logs and tables. Nothing else joins paths or knows a file name."""
