import LinearAlgebra
public import Schema

/// Scores rows of one layer against prepared queries: ⟨G_q, G_i⟩ for every query q and row i.
///
/// Arithmetic is f32, in an order fixed by the layer, the queries and the tile's row count, so the same tile gives the same
/// bits in whichever worker. The choice between strategies is by counted floating-point operations.
public struct LayerScorer: Sendable {
    /// The layer scored: its dimensions and form are what counts.
    public let layer: LayerSchema
    /// Q: the number of queries.
    public let queryCount: Int
    /// The arithmetic chosen, or forced.
    public let strategy: ScoringStrategy

    /// Factor products: Q·c_q × d1. Contraction: Q·r × s, where s is the contracted side's dimension and r the other's.
    /// Reconstruction: for each block of rows a of the matrices, Q × (rows · d2). Dense: the queries, Q × d1·d2.
    private let first: [Float]
    /// Factor products: Q·c_q × d2.
    private let second: [Float]
    /// c_q, for factor products.
    private let queryRank: Int
    private let blockSize: BlockSize

    /// How much is worked on at once.
    package struct BlockSize: Sendable {
        /// Rows of the tile.
        package var rowCount = 256
        /// Numbers of an intermediate: 512 KiB stay in the second-level cache.
        package var numberCount = 128 << 10

        package init(rowCount: Int = 256, numberCount: Int = 128 << 10) {
            self.rowCount = rowCount
            self.numberCount = numberCount
        }
    }

    /// Prepares the queries for the cheapest strategy; what the strategy needs is copied.
    ///
    /// The counts of `form` must match the layer's dimensions and `queryCount`.
    public init(layer: LayerSchema, queryCount: Int, form: QueryForm) {
        let costs = Self.possibleStrategies(layer: layer, form: form).map {
            (strategy: $0, flops: Self.flopsPerRow($0, layer: layer, queryCount: queryCount, queryRank: form.rank))
        }
        // The list is in a fixed order, and of equal costs the first wins.
        guard let cheapest = costs.min(by: { $0.flops < $1.flops }) else { preconditionFailure("no strategy") }
        self.init(layer: layer, queryCount: queryCount, form: form, strategy: cheapest.strategy)
    }

    /// Floating-point operations per row of the cheapest strategy, for queries of rank `queryRank`, or full ones if nil.
    public static func flopsPerRow(layer: LayerSchema, queryCount: Int, queryRank: Int?) -> Int {
        let costs = possibleStrategies(layer: layer, isFactored: queryRank != nil).map {
            flopsPerRow($0, layer: layer, queryCount: queryCount, queryRank: queryRank ?? 0)
        }
        return costs.min() ?? 0
    }

    /// The strategies that can score queries of this form, cheapest to prepare first.
    package static func possibleStrategies(layer: LayerSchema, form: QueryForm) -> [ScoringStrategy] {
        switch form {
        case .full: possibleStrategies(layer: layer, isFactored: false)
        case .factors: possibleStrategies(layer: layer, isFactored: true)
        }
    }

    private static func possibleStrategies(layer: LayerSchema, isFactored: Bool) -> [ScoringStrategy] {
        guard layer.rank != nil else { return [.denseProduct] }
        return isFactored ? [.factorProducts, .contraction, .reconstruction] : [.contraction, .reconstruction]
    }

    package init(
        layer: LayerSchema, queryCount: Int, form: QueryForm, strategy: ScoringStrategy,
        blockSize: BlockSize = BlockSize()
    ) {
        precondition(Self.possibleStrategies(layer: layer, form: form).contains(strategy), "\(strategy) cannot do this")
        form.checkShape(layer: layer, queryCount: queryCount)
        self.layer = layer
        self.queryCount = queryCount
        self.strategy = strategy
        self.blockSize = blockSize
        if strategy == .factorProducts, case .factors(let rank, let left, let right) = form {
            queryRank = rank
            first = left
            second = right
        } else {
            let full = form.expanded(layer: layer, queryCount: queryCount)
            queryRank = 0
            second = []
            switch strategy {
            case .contraction where Self.contractsLeft(layer):
                // Contracting the right side takes Q·d1 × d2, which the queries are; contracting the left one, Q·d2 × d1.
                first = transposedMatrices(
                    full, count: queryCount, rows: layer.inputDimension, columns: layer.outputDimension)
            case .reconstruction:
                first = Self.matrixBlocks(layer, blockSize).flatMap { block in
                    (0..<queryCount).flatMap { query in
                        full[query * layer.gradientLength..<(query + 1) * layer.gradientLength]
                            .dropFirst(block.lowerBound * layer.outputDimension)
                            .prefix(block.count * layer.outputDimension)
                    }
                }
            default:
                first = full
            }
        }
    }

    /// Rows of the tile that are reconstructed together, if their matrices have to be taken in parts.
    private static func reconstructedRowCount(_ blockSize: BlockSize) -> Int { max(1, blockSize.rowCount / 4) }

    /// The blocks of matrix rows that are reconstructed at once: all of them in a layer of ordinary size.
    private static func matrixBlocks(_ layer: LayerSchema, _ blockSize: BlockSize) -> [Range<Int>] {
        let length = 2 * blockSize.numberCount / reconstructedRowCount(blockSize)
        return blocks(layer.inputDimension, size: max(1, length / layer.outputDimension))
    }

    /// Whether contraction takes the left side first: the longer one, so that fewer numbers remain.
    private static func contractsLeft(_ layer: LayerSchema) -> Bool { layer.inputDimension > layer.outputDimension }

    private static func flopsPerRow(
        _ strategy: ScoringStrategy, layer: LayerSchema, queryCount: Int, queryRank: Int
    ) -> Int {
        let d1 = layer.inputDimension
        let d2 = layer.outputDimension
        let rank = layer.rank ?? 0
        return switch strategy {
        case .factorProducts: 2 * queryCount * queryRank * rank * (d1 + d2 + 1)
        case .contraction: 2 * queryCount * rank * (d1 * d2 + min(d1, d2))
        case .reconstruction: 2 * d1 * d2 * (rank + queryCount)
        case .denseProduct: 2 * d1 * d2 * queryCount
        }
    }

    /// Floating-point operations of `accumulate` for a tile of that many rows: multiplications and additions counted singly.
    public func flops(rowCount: Int) -> Int {
        rowCount * Self.flopsPerRow(strategy, layer: layer, queryCount: queryCount, queryRank: queryRank)
    }

    /// Adds the tile's scores to `scores`, which is queryCount × rowCount, row-major.
    ///
    /// The tile must be of this scorer's layer dimensions and form.
    public func accumulate(
        _ tile: LayerTile, into scores: inout MutableSpan<Float>, workspace: inout ScoringWorkspace
    ) {
        precondition(
            tile.layer.inputDimension == layer.inputDimension && tile.layer.outputDimension == layer.outputDimension
                && tile.layer.form == layer.form, "tile of layer \(tile.layer.name) for \(layer.name)")
        precondition(scores.count == queryCount * tile.rowCount, "scores do not match queries and rows")
        guard queryCount > 0, tile.rowCount > 0 else { return }
        switch strategy {
        case .factorProducts: accumulateFactorProducts(tile, into: &scores, workspace: &workspace)
        case .contraction: accumulateContraction(tile, into: &scores, workspace: &workspace)
        case .reconstruction: accumulateReconstruction(tile, into: &scores, workspace: &workspace)
        case .denseProduct: accumulateDense(tile, into: &scores, workspace: &workspace)
        }
    }

    /// Consecutive sub-ranges of 0..<count of at most `size`.
    private static func blocks(_ count: Int, size: Int) -> [Range<Int>] {
        stride(from: 0, to: count, by: size).map { $0..<min(count, $0 + size) }
    }

    private func accumulateFactorProducts(
        _ tile: LayerTile, into scores: inout MutableSpan<Float>, workspace: inout ScoringWorkspace
    ) {
        let d1 = layer.inputDimension
        let d2 = layer.outputDimension
        let rowsPerBlock = min(tile.rowCount, blockSize.rowCount)
        let queriesPerBlock = max(1, min(queryCount, blockSize.numberCount / (2 * rowsPerBlock * queryRank)))
        ScoringWorkspace.grow(&workspace.intermediate, to: queriesPerBlock * queryRank * rowsPerBlock)
        ScoringWorkspace.grow(&workspace.second, to: queriesPerBlock * queryRank * rowsPerBlock)
        for rows in Self.blocks(tile.rowCount, size: rowsPerBlock) {
            for queries in Self.blocks(queryCount, size: queriesPerBlock) {
                let pairs = queries.lowerBound * queryRank..<queries.upperBound * queryRank
                for component in 0..<(layer.rank ?? 0) {
                    let start = component * tile.rowCount
                    let vectors = start + rows.lowerBound..<start + rows.upperBound
                    var leftProducts = workspace.intermediate.mutableSpan
                    multiply(
                        first.span.extracting(extent(pairs, length: d1)),
                        tile.left.span.extracting(extent(vectors, length: d1)),
                        transposeB: true, into: &leftProducts, m: pairs.count, n: rows.count, k: d1)
                    var rightProducts = workspace.second.mutableSpan
                    multiply(
                        second.span.extracting(extent(pairs, length: d2)),
                        tile.right.span.extracting(extent(vectors, length: d2)),
                        transposeB: true, into: &rightProducts, m: pairs.count, n: rows.count, k: d2)
                    addProducts(
                        workspace.intermediate.span, workspace.second.span, queries: queries, queryRank: queryRank,
                        rows: rows, rowCount: tile.rowCount, to: &scores)
                }
            }
        }
    }

    private func accumulateContraction(
        _ tile: LayerTile, into scores: inout MutableSpan<Float>, workspace: inout ScoringWorkspace
    ) {
        let contractsLeft = Self.contractsLeft(layer)
        let contractedSide = contractsLeft ? tile.left : tile.right
        let remainingSide = contractsLeft ? tile.right : tile.left
        let contracted = max(layer.inputDimension, layer.outputDimension)
        let remaining = min(layer.inputDimension, layer.outputDimension)
        let rowsPerBlock = min(tile.rowCount, blockSize.rowCount, max(16, blockSize.numberCount / remaining))
        let queriesPerBlock = max(1, min(queryCount, blockSize.numberCount / (rowsPerBlock * remaining)))
        ScoringWorkspace.grow(&workspace.intermediate, to: rowsPerBlock * queriesPerBlock * remaining)
        for rows in Self.blocks(tile.rowCount, size: rowsPerBlock) {
            for queries in Self.blocks(queryCount, size: queriesPerBlock) {
                for component in 0..<(layer.rank ?? 0) {
                    let start = component * tile.rowCount
                    let vectors = start + rows.lowerBound..<start + rows.upperBound
                    let matrix = queries.lowerBound * remaining..<queries.upperBound * remaining
                    var contractions = workspace.intermediate.mutableSpan
                    multiply(
                        contractedSide.span.extracting(extent(vectors, length: contracted)),
                        first.span.extracting(extent(matrix, length: contracted)), transposeB: true,
                        into: &contractions,
                        m: rows.count, n: matrix.count, k: contracted)
                    addRowDots(
                        workspace.intermediate.span,
                        remainingSide.span.extracting(extent(vectors, length: remaining)),
                        length: remaining, queries: queries, rows: rows, rowCount: tile.rowCount, to: &scores)
                }
            }
        }
    }

    private func accumulateReconstruction(
        _ tile: LayerTile, into scores: inout MutableSpan<Float>, workspace: inout ScoringWorkspace
    ) {
        let d2 = layer.outputDimension
        let matrixBlocks = Self.matrixBlocks(layer, blockSize)
        // Small matrices: as many rows as fit. Large ones: some rows, their matrices in parts.
        let rowsPerBlock = min(
            tile.rowCount,
            max(Self.reconstructedRowCount(blockSize), 2 * blockSize.numberCount / layer.gradientLength))
        let longest = (matrixBlocks.first?.count ?? 0) * d2
        ScoringWorkspace.grow(&workspace.intermediate, to: rowsPerBlock * longest)
        ScoringWorkspace.grow(&workspace.products, to: queryCount * rowsPerBlock)
        for rows in Self.blocks(tile.rowCount, size: rowsPerBlock) {
            for matrixRows in matrixBlocks {
                var matrices = workspace.intermediate.mutableSpan
                reconstruct(tile, rows: rows, matrixRows: matrixRows, into: &matrices)
                let start = matrixRows.lowerBound * d2 * queryCount
                let length = matrixRows.count * d2
                multiplyQueries(
                    start..<start + queryCount * length, workspace.intermediate, 0..<rows.count * length,
                    rowCount: rows.count, into: &workspace.products, beta: matrixRows.lowerBound == 0 ? 0 : 1)
            }
            addBlock(workspace.products.span, queryCount: queryCount, rows: rows, rowCount: tile.rowCount, to: &scores)
        }
    }

    private func accumulateDense(
        _ tile: LayerTile, into scores: inout MutableSpan<Float>, workspace: inout ScoringWorkspace
    ) {
        let rowsPerBlock = min(tile.rowCount, blockSize.rowCount)
        ScoringWorkspace.grow(&workspace.products, to: queryCount * rowsPerBlock)
        for rows in Self.blocks(tile.rowCount, size: rowsPerBlock) {
            multiplyQueries(
                0..<first.count, tile.dense, extent(rows, length: layer.gradientLength), rowCount: rows.count,
                into: &workspace.products, beta: 0)
            addBlock(workspace.products.span, queryCount: queryCount, rows: rows, rowCount: tile.rowCount, to: &scores)
        }
    }

    /// products ← queries · matricesᵀ + beta · products: queryCount × rowCount; the ranges are of whole rows.
    private func multiplyQueries(
        _ queries: Range<Int>, _ matrices: [Float], _ range: Range<Int>, rowCount: Int, into products: inout [Float],
        beta: Float
    ) {
        var target = products.mutableSpan
        multiply(
            first.span.extracting(queries), matrices.span.extracting(range), transposeB: true, into: &target,
            m: queryCount, n: rowCount, k: range.count / rowCount, beta: beta)
    }
}
