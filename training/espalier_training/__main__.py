"""python -m espalier_training COMMAND RUN.toml [section.key=value ...]"""
import sys

from .config import ConfigError, load_run
from . import agree, distil, evaluate, export, finetune, fuse, grow, joint, study, table

COMMANDS = {
    "grow": grow.run,
    "fuse": fuse.run,
    "distil": distil.run,
    "finetune": finetune.run,
    "joint": joint.run,
    "evaluate": evaluate.run,
    "export": export.run,
    "agree": agree.run,
    "table": table.run,
}

USAGE = f"""usage: python -m espalier_training COMMAND RUN.toml [section.key=value ...]
commands: {", ".join(COMMANDS)}, study; finetune and table take several RUN.toml"""

OF_SEVERAL = ("finetune", "table")


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0] not in (*COMMANDS, "study"):
        print(USAGE, file=sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    overrides = [a for a in arguments[1:] if "=" in a]
    files = [a for a in arguments[1:] if "=" not in a]
    try:
        if arguments[0] == "study" and len(files) == 1:
            study.run(files[0], overrides)
        elif arguments[0] in OF_SEVERAL and files:
            COMMANDS[arguments[0]]([load_run(f, overrides) for f in files])
        elif len(files) == 1:
            COMMANDS[arguments[0]](load_run(files[0], overrides))
        else:
            print(USAGE, file=sys.stderr)
            return 2
    except (ConfigError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
