import ArgumentParser
import Engine
import Schema

/// `lorif create`: an empty store.
struct Create: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Create an empty store (optional: ingest creates one).",
        discussion: """
            With --layers the store takes the layers of that batch without its rows; otherwise the first ingest decides.

              lorif create store --layers train.safetensors --encoding int8
            """)

    @Argument(help: "Where the store will be; the path must be free.")
    var store: String
    @Option(help: ArgumentHelp("Take the layers from this factor batch.", valueName: "batch"))
    var layers: String?
    @Option(help: "Rank to which full gradients will be factored; without it they stay full.")
    var rank: Int?
    @Option(help: "How numbers are stored.")
    var encoding: Encoding = .standard
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if let rank, !(1...Limits.rank).contains(rank) {
            throw ValidationError("--rank must be from 1 to \(Limits.rank), not \(rank)")
        }
        if rank != nil, layers == nil { throw ValidationError("--rank needs --layers") }
    }

    func run() throws {
        let schema = try createStore(at: store, layersFrom: layers, rank: rank, encoding: encoding)
        if json {
            try printJSON(Report(store: store, layers: schema.layers.map(LayerReport.init), encoding: encoding.name))
        } else {
            standardOutput(
                "created \(store): "
                    + (schema.layers.isEmpty
                        ? "layers to be decided by the first ingest" : "\(schema.layers.count) layers")
                    + ", \(encoding.name)\n")
        }
    }

    private struct Report: Encodable {
        let store: String
        let layers: [LayerReport]
        let encoding: String
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
