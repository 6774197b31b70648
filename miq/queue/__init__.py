"""The message queue over `miq_queue`: put, claim, deliver, sweep."""
