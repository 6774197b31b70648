"""`miq`: the back end of a hybrid-infrastructure appliance."""

__version__ = "0.1.0"
