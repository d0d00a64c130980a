"""A folder to start from: files for training, analysis and a study, and a file for ideas of one's own."""
