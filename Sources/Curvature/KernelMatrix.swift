import LinearAlgebra
import Schema

/// K = G Gᵀ = Σ_l (U Uᵀ)∘(V Vᵀ), N×N, in Double.
///
/// For factors of rank c, ⟨G_i, G_j⟩ = Σ_ab (u_ia·u_ja)(...): Σ_{a,b} ⟨u_ia, u_jb⟩ ⟨v_ia, v_jb⟩, so rows are never reconstructed
/// unless that is cheaper (c² (d1 + d2) ≥ d1·d2).
enum KernelMatrix {
    /// Operations per pair of rows, in single-precision units; K is symmetric, so half of the 2·k of a product.
    static func operationsPerPair(_ layer: LayerSchema) -> Double {
        2 * Double(usesFactors(layer) ? factorLength(layer) : layer.gradientLength)
    }

    /// Memory beside the matrix while one layer is added.
    static func workingBytes(_ layer: LayerSchema, rowCount: Int) -> Int {
        let numbers =
            usesFactors(layer) ? layer.storedNumberCount : 2 * min(FitGrain.columnBlockWidth, layer.gradientLength)
        return GroupCost.bytes(numbers, rowCount, 8)
    }

    private static func factorLength(_ layer: LayerSchema) -> Int {
        guard let rank = layer.rank else { return layer.gradientLength }
        return rank * rank * (layer.inputDimension + layer.outputDimension + 1)
    }

    private static func usesFactors(_ layer: LayerSchema) -> Bool {
        layer.rank != nil && factorLength(layer) < layer.gradientLength
    }

    /// K of some layers. One pass.
    static func sum(
        of layers: [Int], source: RowSource, workers: Int, progress: FitProgress
    ) throws(CurvatureError) -> PanelMatrix {
        let rowCount = source.rowCount
        let width = FitGrain.panelWidth
        var matrix = PanelMatrix(order: rowCount)
        for layer in layers {
            let schema = source.layers[layer]
            if usesFactors(schema), let rank = schema.rank {
                let (left, right) = try factors(of: layer, rank: rank, source: source)
                parallelUpdate(&matrix.panels, workers: workers) { index, panel in
                    addFactored(
                        left, right, layer: schema, rank: rank, rowCount: rowCount, panelStart: index * width,
                        into: &panel)
                }
            } else {
                for block in ColumnBlock.partition([layer], of: source, width: FitGrain.columnBlockWidth) {
                    let rows = try denseRows(of: block, source: source)
                    parallelUpdate(&matrix.panels, workers: workers) { index, panel in
                        let start = index * width
                        let end = min(start + width, rowCount)
                        var target = panel.mutableSpan
                        multiply(
                            rows.span.extracting((start * block.width)..<(end * block.width)),
                            rows.span.extracting(0..<(end * block.width)), transposeB: true, into: &target,
                            m: end - start, n: end, k: block.width, beta: 1)
                    }
                }
            }
            progress.advance(by: Double(rowCount) * Double(rowCount) * operationsPerPair(schema))
        }
        return matrix
    }

    private static func addFactored(
        _ left: [Double], _ right: [Double], layer: LayerSchema, rank: Int, rowCount: Int, panelStart: Int,
        into panel: inout [Double]
    ) {
        let (d1, d2) = (layer.inputDimension, layer.outputDimension)
        let width = FitGrain.panelWidth
        let panelEnd = min(panelStart + width, rowCount)
        let height = panelEnd - panelStart
        var leftProducts = [Double](repeating: 0, count: height * width)
        var rightProducts = leftProducts
        for columnStart in stride(from: 0, to: panelEnd, by: width) {
            let columnEnd = min(columnStart + width, panelEnd)
            let columns = columnEnd - columnStart
            for a in 0..<rank {
                for b in 0..<rank {
                    let rowLine = a * rowCount + panelStart
                    let columnLine = b * rowCount + columnStart
                    var target = leftProducts.mutableSpan
                    multiply(
                        left.span.extracting((rowLine * d1)..<((rowLine + height) * d1)),
                        left.span.extracting((columnLine * d1)..<((columnLine + columns) * d1)), transposeB: true,
                        into: &target, m: height, n: columns, k: d1)
                    target = rightProducts.mutableSpan
                    multiply(
                        right.span.extracting((rowLine * d2)..<((rowLine + height) * d2)),
                        right.span.extracting((columnLine * d2)..<((columnLine + columns) * d2)), transposeB: true,
                        into: &target, m: height, n: columns, k: d2)
                    for row in 0..<height {
                        let destination = row * panelEnd + columnStart
                        let product = row * columns
                        for column in 0..<columns {
                            panel[destination + column] +=
                                leftProducts[product + column] * rightProducts[product + column]
                        }
                    }
                }
            }
        }
    }

    /// All rows' factors of one layer in Double, component-major over all rows.
    private static func factors(
        of layer: Int, rank: Int, source: RowSource
    ) throws(CurvatureError) -> (left: [Double], right: [Double]) {
        let rowCount = source.rowCount
        let (d1, d2) = (source.layers[layer].inputDimension, source.layers[layer].outputDimension)
        var left = [Double](repeating: 0, count: rank * rowCount * d1)
        var right = [Double](repeating: 0, count: rank * rowCount * d2)
        var firstRow = 0
        for tileIndex in source.tileRowCounts.indices {
            let tile = try source.tile(tileIndex, layer: layer)
            for component in 0..<rank {
                let leftTarget = (component * rowCount + firstRow) * d1
                let leftSource = component * tile.rowCount * d1
                for index in 0..<(tile.rowCount * d1) {
                    left[leftTarget + index] = Double(tile.left[leftSource + index])
                }
                let rightTarget = (component * rowCount + firstRow) * d2
                let rightSource = component * tile.rowCount * d2
                for index in 0..<(tile.rowCount * d2) {
                    right[rightTarget + index] = Double(tile.right[rightSource + index])
                }
            }
            firstRow += tile.rowCount
        }
        return (left, right)
    }

    private static func denseRows(of block: ColumnBlock, source: RowSource) throws(CurvatureError) -> [Double] {
        var rows: [Double] = []
        rows.reserveCapacity(source.rowCount * block.width)
        for tileIndex in source.tileRowCounts.indices {
            let tile = try source.tile(tileIndex, layer: block.layer)
            var part = [Double](repeating: 0, count: tile.rowCount * block.width)
            var span = part.mutableSpan
            reconstruct(tile, rows: 0..<tile.rowCount, columns: block.columns, into: &span)
            rows += part
        }
        return rows
    }
}
