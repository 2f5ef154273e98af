import ArgumentParser
import Curvature
import Engine
import Foundation
import Interchange
import Schema

/// `lorif estimate`: bytes and time before you start.
struct Estimate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Bytes and time that a store will take, before you write it.",
        discussion: """
            For a model on Hugging Face take its config.json: its linear layers but the output layer, as the recorder of \
            Tools/python records them, projected to 64×64 unless --d1 and --d2 say otherwise. Or describe the layers by hand: \
            a million examples, 16 layers projected to 64×64, factors of rank 1.

              lorif estimate --examples 1000000 --model-config config.json --rank 1
              lorif estimate --examples 1000000 --layers 16 --d1 64 --d2 64 --rank 1

            Times are those of this machine, if 'lorif calibrate' has measured it. User metadata is not included.
            """)

    @Option(help: "Training examples.")
    var examples: Int
    @Option(help: ArgumentHelp("The config.json of a Hugging Face model.", valueName: "file"))
    var modelConfig: String?
    @Option(
        help: ArgumentHelp(
            "How many layers; with --model-config which ones, as in '*.mlp.*'. May be repeated.",
            valueName: "number or pattern"))
    var layers: [String] = []
    @Option(help: "Projected input dimension of a layer; with --model-config 64 unless said, and 0 for no projection.")
    var d1: Int?
    @Option(help: "Projected output dimension, likewise.")
    var d2: Int?
    @Option(
        help: ArgumentHelp(
            "Rank of the factors, or by name as in 'attn.*=2,*=1'; without it full d1×d2 matrices.", valueName: "c"))
    var rank: RankChoice?
    @Option(help: "How numbers are stored; q4 unless said. The answer has them all.")
    var encoding: Encoding?
    @Option(help: "Queries that are scored at once.")
    var queries: Int = 1
    @Option(help: "Rank r of the curvature, per layer.")
    var curvatureRank: Int = defaultCurvatureRank
    @Option(help: "Most memory that the fit may take, as in 512MiB or 4GiB.")
    var memory: ByteCount = ByteCount(4 << 30)
    @Option(help: "Mean length of an example's id in bytes.")
    var identifierBytes: Int = 24
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        func require(_ value: Int?, _ name: String, in range: ClosedRange<Int>) throws {
            guard let value, !range.contains(value) else { return }
            throw ValidationError("\(name) must be from \(range.lowerBound) to \(range.upperBound), not \(value)")
        }
        try require(examples, "--examples", in: 1...Limits.batchRowCount)
        try require(queries, "--queries", in: 1...1_000_000)
        try require(curvatureRank, "--curvature-rank", in: 1...Limits.gradientLength)
        try require(identifierBytes, "--identifier-bytes", in: 1...Limits.identifierBytes)
        if modelConfig == nil {
            guard layers.count == 1, let count = Int(layers[0]), let d1, let d2 else {
                throw ValidationError("give --model-config FILE, or a number of --layers with --d1 and --d2")
            }
            try require(count, "--layers", in: 1...Limits.layerCount)
            try require(d1, "--d1", in: 1...Limits.dimension)
            try require(d2, "--d2", in: 1...Limits.dimension)
            guard d1 * d2 <= Limits.gradientLength else {
                throw ValidationError("--d1 times --d2 must be at most \(Limits.gradientLength)")
            }
        } else {
            if let number = layers.first(where: { Int($0) != nil }) {
                throw ValidationError("--layers \(number): with --model-config give patterns of names, as in '*.mlp.*'")
            }
            try require(d1, "--d1", in: 0...Limits.dimension)
            try require(d2, "--d2", in: 0...Limits.dimension)
        }
    }

    func run() throws {
        let model = try describedModel()
        let encoding = encoding ?? .standard
        let schema = try model.projection.schema(of: model.layers, rank: rank, encoding: encoding)
        let machine = MachineModel.load() ?? .standard
        let chosen = Encoding.allCases.firstIndex(of: encoding) ?? 0
        let estimates = try Encoding.allCases.map { encoding in
            try estimateStorage(
                schema: StoreSchema(layers: schema.layers, encoding: encoding), exampleCount: examples,
                curvatureRank: curvatureRank, identifierBytes: identifierBytes)
        }
        let report = EstimateReport(
            model: model, queries: queries,
            encodings: estimates.map { estimate in
                EstimateReport.Kept(
                    storage: estimate,
                    scan: Result {
                        try estimate.scan(queryCount: queries, curvatureRank: curvatureRank, machine: machine)
                    })
            }, chosen: chosen, curvatureRank: curvatureRank,
            fit: Result {
                try estimates[chosen].fit(
                    options: FitOptions(
                        rank: curvatureRank, memoryBytes: memory.value, workers: availableProcessorCount()),
                    machine: machine)
            }, isMeasured: machine.machine != nil)
        for note in model.notes { standardError("lorif: note: \(note)\n") }
        if json { try report.printJSON() } else { report.printText() }
    }

    /// What the options describe, whichever way.
    private func describedModel() throws -> DescribedModel {
        guard let modelConfig else {
            let (d1, d2) = (d1 ?? 0, d2 ?? 0)
            return DescribedModel(
                title: nil,
                layers: (0..<(Int(layers[0]) ?? 0)).map { LinearLayer(name: "layer.\($0)", inputs: d1, outputs: d2) },
                projection: ModelProjection(inputDimension: nil, outputDimension: nil), notes: [])
        }
        let model = try ModelConfiguration(path: modelConfig).modelLayers()
        let standard = ModelProjection.standard
        return DescribedModel(
            title: model.modelType, layers: try ModelProjection.layers(model.layers, matching: layers),
            projection: ModelProjection(
                inputDimension: d1.map { $0 == 0 ? nil : $0 } ?? standard.inputDimension,
                outputDimension: d2.map { $0 == 0 ? nil : $0 } ?? standard.outputDimension), notes: model.notes)
    }
}

/// A model that a store is estimated for.
struct DescribedModel {
    /// Its type, if a configuration said so.
    let title: String?
    let layers: [LinearLayer]
    let projection: ModelProjection
    let notes: [String]
}
