"""The SDKs of the providers to come, for the mold to preload: workers are measured with every one of them loaded.

`warm()` touches what they import lazily, as a provider's own connection module does.
"""

from __future__ import annotations

import kubernetes.client
from pyVmomi import vim


def warm() -> None:
    """Touch one client of each."""
    kubernetes.client.CoreV1Api()
    kubernetes.client.V1Pod()
    _ = vim.VirtualMachine


if __name__ == "__main__":
    warm()
