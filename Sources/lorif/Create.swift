import ArgumentParser
import Checksum
import Engine
import Schema

/// `lorif create`: an empty store.
struct Create: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Create an empty store (optional: ingest creates one).",
        discussion: """
            With --layers the store takes the layers of that batch without its rows; otherwise the first ingest decides. With \
            --whiten-from all gradients are kept in a basis in which that sample is white on both sides, which makes low rank \
            and few bits lose less (README, "Whitening"); layers and sample are then taken from the same batch unless --layers says otherwise.

              lorif create store --layers train.safetensors --encoding int8
              lorif create store --whiten-from sample.safetensors --rank 4
              lorif create other --basis-from store --rank 'attn.*=2,*=1'
            """)

    @Argument(help: "Where the store will be; the path must be free.")
    var store: String
    @Option(help: ArgumentHelp("Take the layers from this factor batch.", valueName: "batch"))
    var layers: String?
    @OptionGroup var layerOptions: LayerOptions
    @Option(help: "How numbers are stored; q4 unless said.")
    var encoding: Encoding?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if layerOptions.rankChoice != nil, layers == nil, layerOptions.basisChoice == .ofBatches {
            throw ValidationError("--rank and --energy need --layers, --whiten-from or --basis-from")
        }
    }

    func run() throws {
        let report = try withProgress(progress) { control in
            try Database(at: store).create(
                layersFrom: layers ?? layerOptions.whitenFrom, rank: layerOptions.rankChoice,
                encoding: encoding ?? .standard, basis: layerOptions.basisChoice, control: control)
        }
        let schema = report.schema
        for note in report.notes { standardError("lorif: note: \(note)\n") }
        if json {
            try printJSON(
                Report(
                    store: store, layers: schema.layers.map(LayerReport.init), encoding: schema.encoding.name,
                    basis: schema.basis?.description))
        } else {
            standardOutput(
                "created \(store): "
                    + (schema.layers.isEmpty
                        ? "layers to be decided by the first ingest" : "\(schema.layers.count) layers")
                    + ", \(schema.encoding.name)" + (schema.basis.map { ", whitened by the basis \($0)" } ?? "") + "\n")
        }
    }

    private struct Report: Encodable {
        let store: String
        let layers: [LayerReport]
        let encoding: String
        let basis: String?
    }
}

/// A layer in JSON reports.
struct LayerReport: Encodable {
    let name: String
    let d1: Int
    let d2: Int
    /// null for a layer of full matrices.
    let rank: Int?

    init(_ layer: LayerSchema) {
        name = layer.name
        d1 = layer.inputDimension
        d2 = layer.outputDimension
        rank = layer.rank
    }
}
