"""Typer builds all commands anew for each call, which takes longer than most of them: in tests it does so once."""

import functools

import typer.main

typer.main.get_command = functools.cache(typer.main.get_command)
