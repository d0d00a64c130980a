"""What is measured: functions that cut a snapshot into labelled matrices. `contract.py` says what they look like."""
