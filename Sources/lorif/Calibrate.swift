import ArgumentParser
import Engine
import Foundation

/// `lorif calibrate`: measure this machine once, so that plans know what queries will take.
struct Calibrate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure this machine, so that query plans fit it.",
        discussion: """
            Times the kernels, memory and the disk under FOLDER for some seconds, while nothing else should run, and keeps the rates in \
            $XDG_CACHE_HOME/lorif/machine.json (~/.cache without it). Queries then choose kernels and ways of reading by them, \
            and 'lorif query --explain' foretells seconds. Without it they go by the rates of a small machine. Answers do not depend on it \
            but for the rounding of single precision.

              lorif calibrate /data/stores
            """)

    @Argument(help: "A folder on the disk of the stores; a file of 256 MiB is written there and removed.")
    var folder = "."
    @Option(help: ArgumentHelp("Keep the rates here instead.", valueName: "file"))
    var output: String?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print the whole model as JSON.")
    var json = false

    func run() throws {
        let model = try withProgress(progress) {
            try calibrateMachine(folder: folder, control: $0)
        }
        let path = output ?? MachineModel.cachePath
        try model.save(toFile: path)
        if json {
            try printJSON(model)
            return
        }
        func rate(_ value: Double, _ unit: String) -> String {
            value > 0 ? rateText(value, unit) : "none here"
        }
        standardOutput(
            table([
                ["processor", model.machine.map { "\($0.processor), \(grouped($0.coreCount)) cores" } ?? ""],
                ["kernels", model.machine?.kernelTier ?? ""],
                ["memory", rate(model.memoryBytesPerSecond, "B/s")],
                ["disk, through the page cache", rate(model.cachedDiskBytesPerSecond, "B/s")],
                ["disk, past the page cache", rate(model.directDiskBytesPerSecond, "B/s")],
                ["matrix products", rate(model.productFlopsPerSecond, "FLOP/s")],
            ]))
        standardOutput("kept in \(path)\n")
    }
}
