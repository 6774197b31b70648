"""The name of an operating system, guessed from text that an image goes by. Pure; names are the modelled system's."""

from __future__ import annotations

import re

UNKNOWN = "unknown"

#: the first entry that has a word in the text wins
_WORDS = (
    ("windows_generic", ("winnetenterprise", "w2k3", "win2k3", "server2003", "winnetstandard", "servernt")),
    (
        "windows_generic",
        ("winxppro", "winxp", "vista", "longhorn", "win2k", "win2000", "microsoft", "windows", "winnt"),
    ),
    ("linux_ubuntu", ("ubuntu",)),
    ("linux_chrome", ("chromeos",)),
    ("linux_chromium", ("chromiumos",)),
    ("linux_suse", ("suse", "sles")),
    ("linux_redhat", ("redhat", "rhel")),
    ("linux_fedora", ("fedora",)),
    ("linux_gentoo", ("gentoo",)),
    ("linux_centos", ("centos",)),
    ("linux_debian", ("debian",)),
    ("linux_coreos", ("coreos",)),
    ("linux_esx", ("vmnixx86", "vmwareesxserver", "esxserver", "vmwareesxi")),
    ("linux_solaris", ("solaris",)),
    ("linux_generic", ("linux",)),
)


def guess(text: str) -> str:
    """`linux_redhat` from "309956199498/RHEL-7.2_HVM"; `unknown` when nothing is recognised."""
    letters = re.sub(r"[^a-z0-9]", "", text.lower())
    return next((name for name, words in _WORDS if any(word in letters for word in words)), UNKNOWN)
