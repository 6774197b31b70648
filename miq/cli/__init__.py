"""The commands of `miq`: one file per noun. They parse, call, print, choose the exit code; the work is done below."""
