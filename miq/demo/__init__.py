"""`make run`: a small simulated Amazon account that keeps changing, and a plain `miq-server` that keeps it in SQL.

    run.py ── account.py     pure: what the account holds, and which change comes next
       │   ├─ changes.py     the changes on disk: MIQ_HOME/demo/changes.jsonl
       │   ├─ cloud.py       makes the changes, through the API
       │   ├─ watch.py       what the tables say about it, as lines for the terminal
       │   ├─ terminal.py    lines out, Ctrl-C in
       │   └─ children.py    the two processes below: started, watched, stopped
       ├── simulator.py ──── simulator_process.py   moto's server, a process of its own
       └── miq-server        as an operator would start it

Only the simulator's process imports moto, which is an extra of the package (`miq[demo]`).
"""
