"""Retraining experiments of our own: how well each method predicts what leaving examples out does, in how many bytes.

A small transformer is trained from a common start on many random halves of its training examples; its gradients are
recorded by lorif's own recorder, stored and asked by the program in every way. Results: the linear datamodeling score
(LDS) of every method with standard errors and its bytes per example, agreement with exact LoGRA, what a query loses
when its best examples are removed and a model is retrained, and how well planted faults and near copies are found.

Two tasks: `digits` (scikit-learn's images in sixteen patches; needs scikit-learn) and `text` (128 pieces of real text,
from Debian packages that are fetched with apt-get). Everything is kept in the folder --work: an interrupted run goes on
where it was when the same command is given again. Settings: Tools/evaluate/retraining/plans.py.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import torch
from processes import machine
from retraining.plans import PLANS
from retraining.run import run
from retraining.summary import as_json, markdown
from retraining.tasks import SEED
from retraining.workshop import OutOfTime, Workshop

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = """\
examples:
  python Tools/evaluate/retrain.py digits --short --work /tmp/digits
  python Tools/evaluate/retrain.py text --work /data/text --output results/retrain-text --plot

Exit code 75: the time of --seconds is over; give the same command again.
"""
#: As sysexits.h has it: try again.
TRY_AGAIN = 75


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="retrain.py", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("task", choices=sorted({task for task, _ in PLANS}), help="what is learnt")
    add("--work", type=Path, required=True, metavar="FOLDER", help="where everything is kept between runs")
    add("--short", action="store_true", help="few models and few methods, in a minute or two of one core")
    add("--lorif", type=Path, default=os.environ.get("LORIF_BIN") or ROOT / ".build/release/lorif",
        help="the program (default: LORIF_BIN, or the release build)")  # fmt: skip
    add("--output", type=Path, metavar="STEM", help="write STEM.md and STEM.json; the report is printed anyway")
    add("--plot", action="store_true", help="with --output: draw STEM.svg as well (needs matplotlib)")
    add("--texts", type=Path, metavar="FOLDER", help="keeps the packages of the texts (default: in --work)")
    add("--data", type=Path, metavar="FOLDER", help="write the experiment there for encodings.py and ideas.py")
    add("--seconds", type=float, help="begin no more pieces of work after this time, and exit with code 75")
    add("--wait-for", type=Path, metavar="FILE", help="stand still while this file exists: others need the machine")
    options = parser.parse_args(arguments)
    if not Path(options.lorif).is_file():
        parser.error(f"{options.lorif} does not exist: build the program, or name it with --lorif or LORIF_BIN")
    if options.plot and options.output is None:
        parser.error("--plot: expected --output, found none")
    if options.plot:
        try:
            import matplotlib  # noqa: F401, PLC0415 - asked for before hours of work
        except ImportError:
            parser.error("--plot: expected matplotlib (pinned in Tools/bench/peers-requirements.txt), found none")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is left to do; returns the exit code."""
    options = parse(arguments)
    torch.set_num_threads(1)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", file=sys.stderr, flush=True)

    short = " --short" if options.short else ""
    try:
        plan = PLANS[options.task, "short" if options.short else "long"]
        workshop = Workshop(options.work, plan, seconds=options.seconds, wait_for=options.wait_for)
        binary = Path(options.lorif).resolve()
        version = subprocess.run([binary, "--version"], capture_output=True, check=True, text=True).stdout.strip()
        facts = {
            "command": f"`python Tools/evaluate/retrain.py {options.task}{short}`",
            "lorif": f"version {version}; PyTorch {torch.__version__}",
            "seeds": f"{SEED} for data and first weights, {plan.subsets} for halves,"
            f" 1 to {plan.subsets * plan.seeds} for the order of their examples",
            **machine(options.work),
        }
        results = run(workshop, binary, texts=options.texts, data=options.data, facts=facts, say=say)
    except OutOfTime:
        say(f"{options.seconds:g} s are over; the same command goes on")
        return TRY_AGAIN
    except (OSError, ValueError, ImportError, subprocess.CalledProcessError) as error:
        print(f"retrain.py: {error}", file=sys.stderr)
        return 5
    text = markdown(results)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        stem = options.output.parent / options.output.name
        Path(f"{stem}.md").write_text(text, encoding="utf-8")
        Path(f"{stem}.json").write_text(as_json(results), encoding="utf-8")
        if options.plot:
            from retraining.plot import draw  # noqa: PLC0415 - needs matplotlib

            draw(Path(f"{stem}.json"), Path(f"{stem}.svg"))
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
