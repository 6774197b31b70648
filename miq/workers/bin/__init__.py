"""The three executables."""
