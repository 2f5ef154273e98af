import ArgumentParser
import Engine
import Schema

/// `lorif estimate`: bytes before you start.
struct Estimate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Bytes that a store will take, before you write it.",
        discussion: """
            Example: a million examples, 16 layers projected to 64×64, factors of rank 1:

              lorif estimate --examples 1000000 --layers 16 --d1 64 --d2 64 --rank 1

            Without --rank the layers are counted as full matrices. User metadata is not included.
            """)

    @Option(help: "Training examples.")
    var examples: Int
    @Option(help: "Layers.")
    var layers: Int
    @Option(help: "Projected input dimension of a layer.")
    var d1: Int
    @Option(help: "Projected output dimension of a layer.")
    var d2: Int
    @Option(help: "Rank c of the factors; without it full d1×d2 matrices.")
    var rank: Int?
    @Option(help: "How numbers are stored.")
    var encoding: Encoding = .standard
    @Option(help: "Rank r of the curvature, per layer.")
    var curvatureRank: Int?
    @Option(help: "Mean length of an example's id in bytes.")
    var identifierBytes: Int = 24
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        func require(_ value: Int, _ name: String, in range: ClosedRange<Int>) throws {
            guard range.contains(value) else {
                throw ValidationError("\(name) must be from \(range.lowerBound) to \(range.upperBound), not \(value)")
            }
        }
        try require(examples, "--examples", in: 1...Limits.batchRowCount)
        try require(layers, "--layers", in: 1...Limits.layerCount)
        try require(d1, "--d1", in: 1...Limits.dimension)
        try require(d2, "--d2", in: 1...Limits.dimension)
        guard d1 * d2 <= Limits.gradientLength else {
            throw ValidationError("--d1 times --d2 must be at most \(Limits.gradientLength)")
        }
        if let rank { try require(rank, "--rank", in: 1...min(d1, d2, Limits.rank)) }
        if let curvatureRank { try require(curvatureRank, "--curvature-rank", in: 1...d1 * d2) }
        try require(identifierBytes, "--identifier-bytes", in: 1...Limits.identifierBytes)
    }

    func run() throws {
        let schema = StoreSchema(
            layers: (0..<layers).map {
                LayerSchema(
                    name: "layer.\($0)", inputDimension: d1, outputDimension: d2,
                    form: rank.map { .factors(rank: $0) } ?? .dense)
            }, encoding: encoding)
        let estimate = estimateStorage(
            schema: schema, exampleCount: examples, curvatureRank: curvatureRank, identifierBytes: identifierBytes)
        let ratio = Double(estimate.fullMatrixBytesPerExample) / estimate.bytesPerExample
        if json {
            try printJSON(
                Report(
                    examples: examples, layers: layers, d1: d1, d2: d2, rank: rank, encoding: encoding.name,
                    factorBytesPerExample: estimate.factorBytesPerExample,
                    normBytesPerExample: estimate.normBytesPerExample,
                    indexBytesPerExample: estimate.indexBytesPerExample, bytesPerExample: estimate.bytesPerExample,
                    storeBytes: estimate.storeBytes, curvatureBytes: estimate.curvatureBytes,
                    fullMatrixF16BytesPerExample: estimate.fullMatrixBytesPerExample, timesSmaller: ratio))
            return
        }
        func bytes(_ value: Double) -> String { grouped(Int(value.rounded())) }
        var rows = [
            ["factors", bytes(estimate.factorBytesPerExample), "bytes/example"],
            ["norms and error bounds", bytes(estimate.normBytesPerExample), "bytes/example"],
            ["ids and indexes", bytes(estimate.indexBytesPerExample), "bytes/example"],
            ["all, with padding", bytes(estimate.bytesPerExample), "bytes/example"],
            ["full matrices in f16 (LoGRA)", grouped(estimate.fullMatrixBytesPerExample), "bytes/example"],
        ]
        if curvatureRank != nil { rows.append(["curvature", byteText(estimate.curvatureBytes), "once"]) }
        rows.append(["store", byteText(estimate.storeBytes), "for \(grouped(examples)) examples"])
        standardOutput(table(rows, right: [1]))
        standardOutput(
            ratio >= 1
                ? "\(String(oneDecimal: ratio)) times smaller than full matrices in f16\n"
                : "\(String(oneDecimal: 1 / ratio)) times larger than full matrices in f16: choose a smaller rank or encoding\n"
        )
    }

    private struct Report: Encodable {
        let examples, layers, d1, d2: Int
        let rank: Int?
        let encoding: String
        let factorBytesPerExample, normBytesPerExample, indexBytesPerExample, bytesPerExample: Double
        let storeBytes, curvatureBytes, fullMatrixF16BytesPerExample: Int
        let timesSmaller: Double
    }
}
