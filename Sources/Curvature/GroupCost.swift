import Schema

/// Sizes that the algorithms and their cost model share.
enum FitGrain {
    /// Width of a panel of H or K: the unit of parallel work. Part of the arithmetic, hence fixed.
    static let panelWidth = 512
    /// Columns of a block of a long gradient.
    static let columnBlockWidth = 4096
    /// A chunk of reconstructed rows aims at this size …
    static let chunkBytes = 32 << 20
    /// … within these bounds.
    static let chunkRows = 64...2048
    /// Rows that single-precision products may be summed over before they are flushed into Double.
    static let singleRows = 4096
    /// Up to this order LAPACK's all-pairs solver is quick enough not to think about.
    static let directOrder = 1536
    /// Double arithmetic is used for truncated Gram matrices up to this many operations.
    static let doubleOperations = 4e11
    /// Below this many operations the streaming iteration is never preferred to an accurate algorithm.
    static let krylovOperations = 2e12

    /// Memory of the program itself, libraries and their buffers, beside the arrays that plans count.
    static let processBytes = 128 << 20

    static func chunkRowCount(width: Int, bytesPerNumber: Int) -> Int {
        min(max(chunkBytes / max(1, width * bytesPerNumber), chunkRows.lowerBound), chunkRows.upperBound)
    }
}

/// The cost of each algorithm on one group. Operations are counted in single-precision units; Double costs two.
struct GroupCost {
    let members: [Int]
    let names: [String]
    let lengths: [Int]
    let gradientLength: Int
    let rowCount: Int
    let rank: Int
    let exact: Bool
    let options: FitOptions
    let numbersPerRow: Int
    /// Decoded bytes of the largest tile, all layers of the group.
    let tileBytes: Int
    /// Operations per pair of rows of the kernel.
    let kernelOperations: Double
    let kernelLayerBytes: Int
    let largestTile: Int

    init(layers: [LayerSchema], members: [Int], rowCount: Int, largestTile: Int, options: FitOptions) {
        self.members = members
        self.options = options
        names = members.map { layers[$0].name }
        lengths = members.map { layers[$0].gradientLength }
        gradientLength = lengths.reduce(0, +)
        self.rowCount = rowCount
        exact = options.exact
        self.largestTile = largestTile
        rank = min(options.rank ?? gradientLength, gradientLength, rowCount)
        numbersPerRow = members.map { layers[$0].storedNumberCount }.reduce(0, +)
        // Decoded, and the pages it came from.
        tileBytes = Self.bytes(largestTile, numbersPerRow, 8)
        kernelOperations = members.map { KernelMatrix.operationsPerPair(layers[$0]) }.reduce(0, +)
        kernelLayerBytes = members.map { KernelMatrix.workingBytes(layers[$0], rowCount: rowCount) }.max() ?? 0
    }

    var resultBytes: Int { Self.bytes(rank, gradientLength, 4) + rank * 8 }

    /// The cheapest algorithm that fits, or the one that was asked for.
    func cheapest(budget: Int) throws(CurvatureError) -> GroupPlan {
        var candidates = [gram(), kernel()]
        if !exact { candidates.append(krylov(budget: budget)) }
        if let forced = options.algorithm { candidates.removeAll { $0.algorithm != forced } }
        let affordable = candidates.filter { plan in
            let (sum, overflow) = plan.workingBytes.addingReportingOverflow(plan.resultBytes)
            return !overflow && sum <= budget
        }
        // The iteration stops short of full accuracy, so it has to save something worth it.
        let price = { (plan: GroupPlan) in
            plan.algorithm == .krylov ? max(2 * plan.operationCount, FitGrain.krylovOperations) : plan.operationCount
        }
        guard let best = affordable.min(by: { price($0) < price($1) }) else {
            let needed = candidates.map { plan in
                let (sum, overflow) = plan.workingBytes.addingReportingOverflow(plan.resultBytes)
                return overflow ? Int.max : sum
            }
            throw .insufficientMemory(
                layers: names, gradientLength: gradientLength, rowCount: rowCount,
                needed: (needed.min() ?? Int.max).addingCapped(options.memoryBytes - budget),
                budget: options.memoryBytes)
        }
        return best
    }

    private func gram() -> GroupPlan {
        let n = Double(rowCount)
        let d = Double(gradientLength)
        let single = !exact && 2 * n * d * d > FitGrain.doubleOperations
        let (solver, solverOperations, solverBytes) = eigen(order: gradientLength)
        let chunk = FitGrain.chunkRowCount(width: gradientLength, bytesPerNumber: single ? 4 : 8)
        let panels = PanelMatrix.numberCount(order: gradientLength)
        let building = Self.bytes(panels, single ? 12 : 8)
            .addingCapped(Self.bytes(chunk, gradientLength, single ? 4 : 8)).addingCapped(tileBytes)
        let working = max(building, Self.bytes(panels, 8).addingCapped(solverBytes))
        return plan(
            .gram, single ? .single : .double, solver, passes: 1,
            operations: n * d * d * (single ? 1 : 2) + solverOperations, working: working)
    }

    private func kernel() -> GroupPlan {
        let n = Double(rowCount)
        let (solver, solverOperations, solverBytes) = eigen(order: rowCount)
        let kept = Self.bytes(rank, gradientLength, 8)
        let matrix = Self.bytes(PanelMatrix.numberCount(order: rowCount), 8)
        let building = kernelLayerBytes.addingCapped(matrix)
        let solving = matrix.addingCapped(solverBytes)
        let projecting = kept.addingCapped(Self.bytes(rank, rowCount, 8))
            .addingCapped(Self.bytes(FitGrain.chunkBytes / 2, options.workers))
        let working = max(building, solving, projecting).addingCapped(tileBytes)
        let operations = n * n * kernelOperations + solverOperations + 4 * n * Double(rank) * Double(gradientLength)
        return plan(.kernel, .double, solver, passes: 2, operations: operations, working: working)
    }

    /// Operations of all eigenpairs by LAPACK, per order³.
    static let directOperations = 20.0

    /// Operations, and bytes beyond the matrix itself, of the eigenproblem of a dense symmetric matrix.
    private func eigen(order: Int) -> (solver: EigenSolver, operations: Double, bytes: Int) {
        let n = Double(order)
        let wanted = min(rank, order)
        if exact || order <= FitGrain.directOrder || wanted * 4 > order {
            // Half of the reduction to tridiagonal form runs at memory speed: hence more than 4/3 + 8/3.
            // The whole matrix, and LAPACK's workspace of twice its size.
            return (.lapackAll, 2 * Self.directOperations * n * n * n, Self.bytes(order, order, 24))
        }
        let sizes = KrylovSizes.dense(order: order, rank: wanted)
        // Three fillings of the basis, as flat spectra of real gradients need.
        let filled = Double(sizes.basisRows)
        let operations = 2 * 3 * (filled * (2 * n * n + 8 * n * filled) + 10 * filled * filled * filled)
        return (.krylov, operations, sizes.bytes(dimension: order))
    }

    private func krylov(budget: Int) -> GroupPlan {
        // Reconstructed rows of every worker, the coordinates of a tile, and what is projected from each of its chunks.
        let count = rank.addingCapped(options.oversampling ?? max(16, rank / 8))
        let width = StreamingOperator<Float>.blockWidth(length: gradientLength)
        let chunkBytes = Self.bytes(options.workers, 8 * StreamingOperator<Float>.chunkRows, width)
            .addingCapped(Self.bytes(largestTile, count, 8))
            .addingCapped(Self.bytes(largestTile / StreamingOperator<Float>.chunkRows + 1, rank, rank, 8))
        let sizes = KrylovSizes.streaming(
            dimension: gradientLength, rank: rank, oversampling: options.oversampling, passes: options.passes,
            budget: budget - resultBytes - tileBytes - chunkBytes)
        let n = Double(rowCount)
        let d = Double(gradientLength)
        let passes = Double(options.passes)
        let working = sizes.bytes(dimension: gradientLength).addingCapped(tileBytes).addingCapped(chunkBytes)
        let block = Double(sizes.blockRows)
        let operations = passes * (4 * n * d * block + 12 * d * block * Double(sizes.basisRows))
        let double = operations < FitGrain.doubleOperations / 4
        return plan(
            .krylov, double ? .double : .single, .krylov, passes: options.passes,
            operations: double ? 2 * operations : operations,
            working: working, sizes: sizes)
    }

    private func plan(
        _ algorithm: FitAlgorithm, _ arithmetic: Arithmetic, _ solver: EigenSolver, passes: Int, operations: Double,
        working: Int, sizes: KrylovSizes? = nil
    ) -> GroupPlan {
        GroupPlan(
            layers: members, gradientLength: gradientLength, rowCount: rowCount, rank: rank, algorithm: algorithm,
            arithmetic: arithmetic, solver: solver, blockRows: sizes?.blockRows ?? 0, basisRows: sizes?.basisRows ?? 0,
            passes: passes, operationCount: operations,
            numbersRead: Double(passes) * Double(rowCount) * Double(numbersPerRow), workingBytes: working,
            resultBytes: resultBytes)
    }

    /// A product of sizes, capped instead of overflowing: more than any budget.
    static func bytes(_ factors: Int...) -> Int {
        factors.reduce(1) { product, factor in
            let (result, overflow) = product.multipliedReportingOverflow(by: factor)
            return overflow ? Int.max : result
        }
    }
}

/// Block and basis sizes of a Krylov iteration.
struct KrylovSizes {
    /// Rows of the block that H is applied to at a time.
    let blockRows: Int
    /// Most rows of the Krylov basis; the iteration restarts when the next block would not fit.
    let basisRows: Int

    /// For a dense matrix in memory: an application costs the same per row in any block, so blocks are small and the basis
    /// grows in small steps.
    static func dense(order: Int, rank: Int) -> KrylovSizes {
        let block = min(64, max(8, rank / 4))
        return KrylovSizes(blockRows: min(block, order), basisRows: min(order, 3 * rank + 4 * block))
    }

    /// For streaming: a pass is dear, so one block covers all directions wanted, and the basis keeps as many blocks as there
    /// are passes if memory allows; two at least.
    static func streaming(
        dimension: Int, rank: Int, oversampling: Int?, passes: Int, budget: Int
    ) -> KrylovSizes {
        let block = min(dimension, rank.addingCapped(oversampling ?? max(16, rank / 8)))
        var blockCount = max(2, min(passes - 1, (dimension + block - 1) / max(1, block)))
        var sizes = KrylovSizes(blockRows: block, basisRows: min(dimension, blockCount * block))
        while blockCount > 2, sizes.bytes(dimension: dimension) > budget {
            blockCount -= 1
            sizes = KrylovSizes(blockRows: block, basisRows: min(dimension, blockCount * block))
        }
        return sizes
    }

    /// Basis, and the block under way, its image, what remains of that and three stages of orthonormalising it, in Double; and the
    /// projected problem.
    func bytes(dimension: Int) -> Int {
        GroupCost.bytes(basisRows + 6 * blockRows, dimension, 8).addingCapped(GroupCost.bytes(basisRows, basisRows, 32))
    }
}

extension Int {
    /// The sum, or `Int.max` on overflow.
    func addingCapped(_ other: Int) -> Int {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? Int.max : sum
    }
}
