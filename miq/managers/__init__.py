"""The verbs on managers that the command line and the API share: add, edit, check, remove."""
