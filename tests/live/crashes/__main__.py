"""The command line of a campaign; exit status 1 when anything acknowledged was lost, doubled or left half done."""

import argparse
import asyncio
import os
import platform
import signal
import statistics
import sys

from tests.live.crashes.campaign import Plan, Report, Round, play


def main() -> None:
    """Play a campaign and print what happened."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.crashes", description=__doc__)
    parser.add_argument("--store", choices=("embedded", "postgresql", "remote"), default="embedded")
    parser.add_argument("--victim", choices=("program", "database", "store"), default="program")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100.0, help="operations a second")
    given = parser.parse_args()
    if given.store == "embedded" and given.victim != "program":
        parser.error("with embedded stores and SQLite the program is all there is to kill")
    print(f"{given.store}, kill -9 of the {given.victim}, {given.rate:g} operations a second")
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}", flush=True)
    print("round  alive s   sent  acknowledged  refused  unheard  unknown  repeated  ready s  counting s", flush=True)
    # Told to stop, it ends what it started, as it does when interrupted at the keyboard.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = asyncio.run(play(Plan(given.store, given.victim, given.rounds, given.rate), tell=_tell))
    _sum_up(report)
    for violation in report.violations:
        print(f"VIOLATION: {violation}")
    if report.log is not None:
        print(f"What the program printed: {report.log}")
    sys.exit(1 if report.violations else 0)


def _tell(played: Round) -> None:
    print(
        f"{played.number:5}  {played.alive:7.2f}  {played.sent:5}  {played.acknowledged:12}  {played.refused:7}  "
        f"{played.unheard:7}  {played.unknown:7}  {played.repeated:8}  {played.ready:7.2f}  {played.counting:10.2f}",
        flush=True,
    )


def _sum_up(report: Report) -> None:
    rounds = report.rounds
    print("first answers by status (0: no answer):", dict(sorted(report.statuses.items())))
    print("operations by kind:", report.kinds)
    print(
        f"{len(rounds)} rounds: {sum(one.sent for one in rounds)} sent, "
        f"{sum(one.acknowledged for one in rounds)} acknowledged, {sum(one.unknown for one in rounds)} unknown, "
        f"{sum(one.repeated for one in rounds)} repeated; "
        f"{report.came_about} were kept though their answer never came; "
        f"ready again after {statistics.median(one.ready for one in rounds):.2f} s "
        f"(at most {max(one.ready for one in rounds):.2f} s); {len(report.violations)} violations"
    )


if __name__ == "__main__":
    main()
