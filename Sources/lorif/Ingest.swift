import ArgumentParser
import Checksum
import Engine
import Schema

/// `lorif ingest`: append factor batches.
struct Ingest: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Append factor batch files to a store, creating it if there is none.",
        discussion: """
            All files become visible together, or none does. A file that was ingested before is recognised by its digest \
            and adds nothing. User metadata (text, source, …) is read from FILE.jsonl beside FILE.safetensors, or from --metadata.

              lorif ingest store train-0.safetensors train-1.safetensors --encoding int8
              lorif ingest store train.safetensors --whiten-from train.safetensors
            """)

    @Argument(help: "The store.")
    var store: String
    @Argument(help: ArgumentHelp("Factor batch files (Formats/factor-batch.md).", valueName: "batch"))
    var batches: [String]
    @Option(help: "How numbers are stored in a new store; \(Encoding.standard.name) unless said.")
    var encoding: Encoding?
    @OptionGroup var layerOptions: LayerOptions
    @Option(help: ArgumentHelp("JSONL file of user metadata, one object with \"id\" per line.", valueName: "file"))
    var metadata: String?
    @Option(help: "What to do with rows whose id is taken: error, skip or replace.")
    var onDuplicate: DuplicatePolicy = .error
    @Option(help: "What becomes visible together: the whole command, or each file.")
    var atomic: Atomicity = .command
    @Option(help: "Memory for decoded rows, as in 512MiB or 4GiB.")
    var memory: ByteCount = ByteCount(IngestOptions.defaultMemoryBytes)
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let started = ContinuousClock.now
        let report = try withProgress(progress) { control in
            try Database(at: store).ingest(
                batches,
                options: IngestOptions(
                    encoding: encoding, rank: layerOptions.rankChoice, basis: layerOptions.basisChoice,
                    metadataPath: metadata, onDuplicate: onDuplicate, atomicity: atomic, memoryBytes: memory.value),
                control: control)
        }
        for note in report.notes { standardError("lorif: note: \(note)\n") }
        let elapsed = seconds(ContinuousClock.now - started)
        let bytesPerExample = report.rowCount > 0 ? Double(report.byteCount) / Double(report.rowCount) : 0
        if json {
            try printJSON(
                Report(
                    store: store, rows: report.rowCount, bytes: report.byteCount, bytesPerExample: bytesPerExample,
                    fullMatrixF16BytesPerExample: 2 * report.schema.gradientLength, totalRows: report.totalRowCount,
                    replacedRows: report.replacedRowCount, keptEnergy: report.keptEnergy,
                    keptEnergyByLayer: report.keptEnergy.map { _ in
                        Dictionary(uniqueKeysWithValues: report.keptEnergyByLayer.map { ($0.layer, $0.share) })
                    }, generation: report.generation, createdStore: report.createdStore,
                    basis: report.schema.basis?.description, seconds: elapsed,
                    batches: report.batches.map {
                        Report.Batch(
                            path: $0.path, rows: $0.rowCount, skippedRows: $0.skippedRowCount,
                            digest: $0.digest.description,
                            alreadyPresent: $0.alreadyPresent)
                    }))
            return
        }
        for batch in report.batches where batch.alreadyPresent {
            standardOutput("\(batch.path): already ingested, nothing added\n")
        }
        let skippedCount = report.batches.reduce(0) { $0 + $1.skippedRowCount }
        if skippedCount > 0 { standardOutput("\(grouped(skippedCount)) rows left out: their ids are taken\n") }
        if report.replacedRowCount > 0 { standardOutput("\(grouped(report.replacedRowCount)) rows replaced\n") }
        let full = Double(2 * report.schema.gradientLength)
        var text =
            "\(grouped(report.rowCount)) rows added in \(durationText(elapsed)), \(grouped(report.totalRowCount)) in all"
        if report.rowCount > 0 {
            text += "; \(byteText(report.byteCount)), \(grouped(Int(bytesPerExample.rounded()))) bytes/example"
            text +=
                " (full matrices in f16: \(grouped(Int(full))), \(String(oneDecimal: full / bytesPerExample)) times as many)"
        }
        standardOutput(text + "\n")
        if let kept = report.keptEnergy {
            let lowest = report.keptEnergyByLayer.min { $0.share < $1.share }
            standardOutput(
                "energy kept by the factors: \(percentText(kept))"
                    + (lowest.map { "; least at \($0.layer): \(percentText($0.share))" } ?? "") + "\n")
        }
    }

    private struct Report: Encodable {
        struct Batch: Encodable {
            let path: String
            let rows, skippedRows: Int
            let digest: String
            let alreadyPresent: Bool
        }
        let store: String
        let rows, bytes: Int
        let bytesPerExample: Double
        let fullMatrixF16BytesPerExample, totalRows, replacedRows: Int
        let keptEnergy: Double?
        let keptEnergyByLayer: [String: Double]?
        let generation: UInt64
        let createdStore: Bool
        let basis: String?
        let seconds: Double
        let batches: [Batch]
    }
}
