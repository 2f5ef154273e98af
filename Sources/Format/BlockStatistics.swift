/// What a segment's footer says about the norms of a block's rows, so that a scan may skip it unread.
///
/// A row's norm is the root of the sum over layers of its squared stored norms (the rounded-up ones of the norm page).
public struct BlockStatistics: Hashable, Sendable {
    /// At most the smallest row norm.
    public var minimumNorm: Float
    /// At least the largest row norm.
    public var maximumNorm: Float
    /// At least the largest row residual norm.
    public var maximumResidualNorm: Float

    static let byteCount = 16

    /// A value of these parts.
    public init(minimumNorm: Float, maximumNorm: Float, maximumResidualNorm: Float) {
        self.minimumNorm = minimumNorm
        self.maximumNorm = maximumNorm
        self.maximumResidualNorm = maximumResidualNorm
    }

    /// The statistics of rows with these norms (`NormPage.rowNorms`); bounds rounded outwards.
    public init(rowNorms norms: [Double], rowResidualNorms: [Double]) {
        func up(_ value: Double) -> Float {
            let rounded = Float(value)
            return Double(rounded) < value ? rounded.nextUp : rounded
        }
        let minimum = norms.min() ?? 0
        let rounded = Float(minimum)
        self.init(
            minimumNorm: Double(rounded) > minimum ? rounded.nextDown : rounded, maximumNorm: up(norms.max() ?? 0),
            maximumResidualNorm: up(rowResidualNorms.max() ?? 0))
    }

    /// The statistics section of a footer.
    public static func encode(_ blocks: [BlockStatistics]) -> [UInt8] {
        var writer = ByteWriter()
        for block in blocks {
            writer.write(block.minimumNorm.bitPattern)
            writer.write(block.maximumNorm.bitPattern)
            writer.write(block.maximumResidualNorm.bitPattern)
            writer.write(UInt32(0))
        }
        return writer.bytes
    }

    /// The statistics in the untrusted section of a footer with that many blocks.
    public static func decode(_ bytes: [UInt8], blockCount: Int) throws(FormatError) -> [BlockStatistics] {
        let (expected, overflow) = blockCount.multipliedReportingOverflow(by: byteCount)
        guard !overflow, bytes.count == expected else {
            throw .partSize(part: .statistics, expected: overflow ? Int.max : expected, found: bytes.count)
        }
        var reader = PartReader(bytes, part: .statistics)
        var blocks: [BlockStatistics] = []
        blocks.reserveCapacity(blockCount)
        for index in 0..<blockCount {
            let block = BlockStatistics(
                minimumNorm: try reader.readFloat(), maximumNorm: try reader.readFloat(),
                maximumResidualNorm: try reader.readFloat())
            try reader.readZeros(count: 4)
            guard block.minimumNorm >= 0, block.minimumNorm <= block.maximumNorm, block.maximumResidualNorm >= 0 else {
                throw .statistics(block: index)
            }
            blocks.append(block)
        }
        return blocks
    }
}
