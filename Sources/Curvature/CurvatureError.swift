public import LinearAlgebra

/// What can go wrong when curvature is fitted or applied.
public enum CurvatureError: Error, CustomStringConvertible {
    /// The options contradict each other or the store; `reason` says how.
    case invalidOptions(reason: String)
    /// No algorithm fits into the memory budget; `needed` is the least that would do.
    case insufficientMemory(layers: [String], gradientLength: Int, rowCount: Int, needed: Int, budget: Int)
    /// The row source failed to deliver a tile.
    case unreadable(tile: Int, layer: String, underlying: any Error)
    /// The row source delivered a tile of another shape than it had announced.
    case unexpectedTile(tile: Int, layer: String, expectedRows: Int, foundRows: Int)
    /// Gradients overflow: their second moments are not finite numbers.
    case nonFinite(layers: [String])
    /// A damping that is not a positive finite number. `description` of the damping and what it gave.
    case invalidDamping(damping: Damping, value: Double)
    /// Preconditioned gradients do not fit into f32.
    case overflow(layer: Int)
    /// A decomposition failed.
    case decomposition(LinearAlgebraError)

    /// One line: where, what was expected, what was found.
    public var description: String {
        switch self {
        case .invalidOptions(let reason): reason
        case .insufficientMemory(let layers, let length, let rows, let needed, let budget):
            "curvature of \(Self.name(layers)) (gradient length \(length), \(rows) rows) needs \(needed) bytes of memory, "
                + "the budget is \(budget) bytes; raise the budget, lower the rank or use per-layer scope"
        case .unreadable(let tile, let layer, let underlying):
            "cannot read layer \(layer) of row block \(tile): \(underlying)"
        case .unexpectedTile(let tile, let layer, let expected, let found):
            "layer \(layer) of row block \(tile) has an unexpected shape: expected \(expected) rows, found \(found)"
        case .nonFinite(let layers):
            "second moments of \(Self.name(layers)) are not finite: the gradients are too large"
        case .invalidDamping(let damping, let value):
            "damping \(damping) gives λ = \(value); λ must be a positive finite number"
        case .overflow(let layer):
            "preconditioned gradients of layer \(layer) do not fit into f32; raise the damping"
        case .decomposition(let error): "\(error)"
        }
    }

    static func name(_ layers: [String]) -> String {
        layers.count == 1 ? "layer \(layers[0])" : "\(layers.count) layers together"
    }
}

/// Runs a decomposition, wrapping its error.
func decompose<Result>(_ body: () throws(LinearAlgebraError) -> Result) throws(CurvatureError) -> Result {
    do throws(LinearAlgebraError) { return try body() } catch { throw .decomposition(error) }
}
