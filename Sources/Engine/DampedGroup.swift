import Curvature
import Schema
import Store

/// One curvature group with its damping, by itself: queries and rows of its own layers in, the operator (H + λI)⁻¹ applied.
struct DampedGroup: Sendable {
    /// Store positions of the group's layers, ascending.
    let layers: [Int]
    let rank: Int
    /// λ; 0 for a group without any gradient under relative damping, which takes no part.
    let lambda: Double
    private let operation: DampedCurvature

    init(_ group: CurvatureGroupData, schema: StoreSchema, damping: Damping) throws(CurvatureError) {
        layers = group.layers
        rank = group.eigenvalues.count
        // Layers are renumbered from 0, so that only this group's gradients have to be at hand.
        let alone = CurvatureGroup(group, layers: Array(group.layers.indices), schema: schema)
        operation = try DampedCurvature(FittedCurvature(scope: .global, groups: [alone]), damping: damping)
        lambda = operation.lambdas[0]
    }

    /// (H + λI)⁻¹ q for full gradients, queries × D_l for each of the group's layers in order.
    ///
    /// `forFittedRows` promises that the result meets only rows that the curvature was fitted on.
    func precondition(
        _ gradients: [[Float]], queryCount: Int, forFittedRows: Bool, workers: Int
    ) throws(CurvatureError) -> [[Float]] {
        try operation.precondition(
            gradients, rowCount: queryCount, forFittedRows: forFittedRows, workers: workers)
    }

    /// gᵀ(H + λI)⁻¹g of every row with every damping of one group, from the tiles of the group's layers in order.
    ///
    /// `forFittedRows` promises that the curvature was fitted on these rows, among others.
    static func selfInfluences(_ damped: [DampedGroup], of tiles: [LayerTile], forFittedRows: Bool) -> [[Double]] {
        DampedCurvature.selfInfluences(
            damped.map(\.operation), of: tiles, forFittedRows: forFittedRows, workers: 1)
    }

    /// The same with this damping from the rows' stored coordinates, without their gradients.
    func selfInfluence(of rows: EigenCoordinates, forFittedRows: Bool) -> [Double] {
        operation.selfInfluence(of: rows, group: 0, forFittedRows: forFittedRows)
    }
}

extension CurvatureGroup {
    /// A stored group as mathematics knows it, its layers called by other numbers.
    init(_ group: CurvatureGroupData, layers: [Int], schema: StoreSchema) {
        self.init(
            layers: layers, layerLengths: group.layers.map { schema.layers[$0].gradientLength }, trace: group.trace,
            eigenvalues: group.eigenvalues, basis: group.basis,
            algorithm: FitAlgorithm(rawValue: group.details.algorithm) ?? .krylov,
            arithmetic: Arithmetic(rawValue: group.details.arithmetic) ?? .single,
            solver: EigenSolver(rawValue: group.details.solver) ?? .krylov, rowCount: 0,
            passes: group.details.passCount, orthogonalityError: group.details.orthogonalityError,
            residual: group.details.residual, spansRows: group.details.spansRows)
    }
}

extension CurvatureGroupData {
    /// A fitted group as the store keeps it.
    init(_ group: CurvatureGroup) {
        var details = CurvatureGroupDetails()
        details.algorithm = group.algorithm.rawValue
        details.arithmetic = group.arithmetic.rawValue
        details.solver = group.solver.rawValue
        details.passCount = group.passes
        details.orthogonalityError = group.orthogonalityError
        details.residual = group.residual
        details.spansRows = group.spansRows
        self.init(
            layers: group.layers, gradientLength: group.gradientLength, eigenvalues: group.eigenvalues,
            basis: group.basis, trace: group.trace, details: details)
    }
}
