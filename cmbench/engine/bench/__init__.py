"""What a training step costs on this machine: its rate, its phases, their memory, and what the device can do.

`recipes.py` measures one recipe or two in turn, `ranks.py` on several processes. Parts of it serve `engine.doctor` and
`benchmarks/`. Nothing is written beside a temporary folder.
"""
