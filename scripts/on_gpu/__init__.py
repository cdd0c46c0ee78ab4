"""The parts of `make gpu`: the choice of recipes, the checks, the benches, and the table of docs/performance.md."""
