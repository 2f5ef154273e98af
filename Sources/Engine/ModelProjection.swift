public import Interchange
public import Schema

/// How the recorder makes a model's layers smaller: d1 and d2 of every layer, or nothing.
public struct ModelProjection: Hashable, Sendable {
    /// Rows of a projected gradient, and as many as the layer has inputs where those are fewer; nil: the inputs themselves.
    public let inputDimension: Int?
    /// The same for outputs.
    public let outputDimension: Int?

    /// What the recorder takes unless told otherwise.
    public static let standard = ModelProjection(inputDimension: 64, outputDimension: 64)

    /// A projection to d1×d2.
    public init(inputDimension: Int?, outputDimension: Int?) {
        self.inputDimension = inputDimension
        self.outputDimension = outputDimension
    }

    /// The layers that match any of the glob patterns, as a query selects them; all without patterns.
    ///
    /// Throws `.patternMatchesNothing`.
    public static func layers(
        _ layers: [LinearLayer], matching patterns: [String]
    ) throws(EngineError) -> [LinearLayer] {
        try LayerSelection(patterns, ofNames: layers.map(\.name)).layers.map { layers[$0] }
    }

    /// The schema of a store of these layers' gradients, factored to the ranks that `rank` says; without it full matrices.
    ///
    /// Throws `.invalidRequest` for a projected layer that is larger than the format allows, and for patterns of ranks that do not cover
    /// the layers; an energy needs gradients and is refused.
    public func schema(
        of layers: [LinearLayer], rank: RankChoice?, encoding: Encoding
    ) throws -> StoreSchema {
        guard layers.count <= Limits.layerCount else {
            throw EngineError.invalidRequest("\(layers.count) layers: a store has at most \(Limits.layerCount)")
        }
        let shapes = try layers.map { layer in
            let d1 = min(inputDimension ?? layer.inputs, layer.inputs)
            let d2 = min(outputDimension ?? layer.outputs, layer.outputs)
            guard d1 <= Limits.dimension, d2 <= Limits.dimension, d1 * d2 <= Limits.gradientLength else {
                throw EngineError.invalidRequest(
                    "layer '\(layer.name)' of \(d1)×\(d2): a store has at most \(Limits.dimension) on a side and "
                        + "\(Limits.gradientLength) in all; project it, as with --d1 64 --d2 64")
            }
            return LayerSchema(name: layer.name, inputDimension: d1, outputDimension: d2, form: .dense)
        }
        let ranks = try chosenRanks(rank, layers: shapes, sample: nil, basis: nil)
        return StoreSchema(
            layers: zip(shapes, ranks).map { shape, rank in
                LayerSchema(
                    name: shape.name, inputDimension: shape.inputDimension, outputDimension: shape.outputDimension,
                    form: rank.map { .factors(rank: $0) } ?? .dense)
            }, encoding: encoding)
    }
}
