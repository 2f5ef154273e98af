import ArgumentParser
import Checksum
import Engine
import Schema

/// `lorif pack`: factor batches as a segment file.
struct Pack: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write factor batches as one segment file, without a store.",
        discussion: """
            For many workers that write without coordination: each packs its own rows, on any machine, and 'lorif attach' joins \
            the segments later. Rows must have ids. For a whitened store give --layers-of or --basis-from.

              lorif pack worker-7.segment factors-7-*.safetensors --encoding int8
            """)

    @Argument(help: ArgumentHelp("The file to write.", valueName: "out.segment"))
    var output: String
    @Argument(help: ArgumentHelp("Factor batch files.", valueName: "batch"))
    var batches: [String]
    @Option(help: ArgumentHelp("Take layers, ranks and encoding from this store.", valueName: "store"))
    var layersOf: String?
    @Option(help: "How numbers are stored; must be that of the store that will take it.")
    var encoding: Encoding?
    @OptionGroup var layerOptions: LayerOptions
    @Option(help: ArgumentHelp("JSONL file of user metadata.", valueName: "file"))
    var metadata: String?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if layersOf != nil, layerOptions.rankChoice != nil || layerOptions.basisFrom != nil {
            throw ValidationError("--layers-of says ranks and basis: leave out --rank, --energy and --basis-from")
        }
        if layerOptions.whitenFrom != nil {
            throw ValidationError("--whiten-from makes a basis, which only a store can keep: use 'lorif create'")
        }
    }

    func run() throws {
        let report = try withProgress(progress) { control in
            try packSegment(
                batches, to: output, layersOf: layersOf,
                options: IngestOptions(
                    encoding: encoding, rank: layerOptions.rankChoice, basis: layerOptions.basisChoice,
                    metadataPath: metadata), control: control)
        }
        for note in report.notes { standardError("lorif: note: \(note)\n") }
        if json {
            try printJSON(
                Report(
                    output: output, rows: report.rowCount, bytes: report.byteCount, digest: report.digest,
                    encoding: report.schema.encoding.name, basis: report.schema.basis?.description,
                    keptEnergy: report.keptEnergy))
        } else {
            standardOutput(
                "\(output): \(grouped(report.rowCount)) rows, \(byteText(report.byteCount)), "
                    + "\(grouped(report.byteCount / max(1, report.rowCount))) bytes/example\n")
            if let kept = report.keptEnergy { standardOutput("energy kept by the factors: \(percentText(kept))\n") }
        }
    }

    private struct Report: Encodable {
        let output: String
        let rows, bytes: Int
        let digest, encoding: String
        let basis: String?
        let keptEnergy: Double?
    }
}
