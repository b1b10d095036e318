"""Completion in the shell: click's own, for a program that does not run by click's own entry.

The script that `completion` prints calls `statehousectl` again, with COMPLETION_VARIABLE set, for each Tab.
"""

import os
from typing import Final

import click
from click.shell_completion import get_completion_class, shell_complete

__all__ = ["COMPLETION_VARIABLE", "answer_completion", "completion"]

PROGRAM: Final = "statehousectl"
COMPLETION_VARIABLE: Final = "_STATEHOUSECTL_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")


@click.command(
    short_help="Print the script with which a shell completes commands and options.",
    epilog="""\b
To install it:
  bash  echo 'eval "$(statehousectl completion bash)"' >> ~/.bashrc       (bash 4.4 or newer)
  zsh   echo 'eval "$(statehousectl completion zsh)"' >> ~/.zshrc         (after compinit)
  fish  statehousectl completion fish > ~/.config/fish/completions/statehousectl.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes the commands and options of statehousectl.

    Asks no daemon; names of agents and keys are not completed.
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click has no completion for {shell}")
    click.echo(found(context.find_root().command, {}, PROGRAM, COMPLETION_VARIABLE).source())


def answer_completion(command: click.Command) -> int | None:
    """Answer the script of `completion`, if it is that which calls: the exit code. None: it is not."""
    instruction = os.environ.get(COMPLETION_VARIABLE)
    return shell_complete(command, {}, PROGRAM, COMPLETION_VARIABLE, instruction) if instruction else None
