"""Writes Sources/Engine/StandardMachine.swift, the model of a machine that nobody has measured, from a measured one.

Run `lorif calibrate --output machine.json` on an idle machine of two processors with AVX2 first.
"""

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def digits(value: float) -> str:
    """Two significant digits, as a Swift literal."""
    return f"{value:.2g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def swift(model: dict) -> str:
    """The source file."""
    rates = {
        name: digits(model[name])
        for name in (
            "memoryBytesPerSecond",
            "cachedDiskBytesPerSecond",
            "directDiskBytesPerSecond",
            "productFlopsPerSecond",
        )
    }
    lines = [
        "// Written by Tools/bench/standard_machine.py from a measured model.",
        "",
        "extension MachineModel {",
        "    /// A machine that nobody has measured: two processors with AVX2 and a disk of the cloud.",
        "    public static let standard = MachineModel(",
        f"        machine: nil, memoryBytesPerSecond: {rates['memoryBytesPerSecond']},",
        f"        cachedDiskBytesPerSecond: {rates['cachedDiskBytesPerSecond']},",
        f"        directDiskBytesPerSecond: {rates['directDiskBytesPerSecond']},",
        f"        productFlopsPerSecond: {rates['productFlopsPerSecond']},",
        "        costs: Dictionary(",
        "            uniqueKeysWithValues: standardCosts.map { name, counts, costs in",
        "                (name, zip(counts, costs).map { Point($0, $1) })",
        "            }))",
        "",
        "    private static let standardCosts: [(String, [Int], [Double])] = [",
    ]
    for name, points in sorted(model["costs"].items()):
        counts = ", ".join(str(point["count"]) for point in points)
        costs = ", ".join(digits(point["nanoseconds"]) for point in points)
        lines.append(f'        ("{name}", [{counts}], [{costs}]),')
    return "\n".join([*lines, "    ]", "}", ""])


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="what 'lorif calibrate --output' wrote")
    options = parser.parse_args()
    text = swift(json.loads(options.model.read_text()))
    (ROOT / "Sources/Engine/StandardMachine.swift").write_text(text)


if __name__ == "__main__":
    main()
