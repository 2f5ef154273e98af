/// The buffers that one worker reuses from tile to tile; they grow to what the largest layer needs.
public struct ScoringWorkspace: Sendable {
    /// The product with the left side, the contracted query or the reconstructed rows.
    var intermediate: [Float] = []
    /// The product with the right side.
    var second: [Float] = []
    /// Queries × rows of one sub-block.
    var products: [Float] = []

    /// Empty buffers.
    public init() {}

    static func grow(_ buffer: inout [Float], to count: Int) {
        if buffer.count < count { buffer = [Float](repeating: 0, count: count) }
    }
}
