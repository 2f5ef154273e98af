import Checksum
import Schema
import Store

private struct BasisReport: Encodable {
    struct Layer: Encodable {
        let layer: String
        let d1, d2: Int
        /// Whether its sample was zero, so that it is left as it is.
        let identity: Bool
        /// Mean ‖G‖² of the sample.
        let meanSquaredNorm: Double
        /// Largest over smallest stretch of W1 and W2.
        let leftCondition, rightCondition: Double
    }
    let basis: String
    let epsilon: Double
    let sampleRows: Int
    let layers: [Layer]
}

/// Prints the whitening basis of a store.
func showBasis(_ snapshot: Snapshot, json: Bool) throws {
    guard let digest = snapshot.schema.basis, let basis = try snapshot.readBasis() else {
        throw StoreError.basisMissing(path: snapshot.path)
    }
    let report = BasisReport(
        basis: digest.description, epsilon: basis.epsilon, sampleRows: basis.sampleCount,
        layers: basis.layers.map { layer in
            let conditions = layer.conditions(epsilon: basis.epsilon)
            return BasisReport.Layer(
                layer: layer.name, d1: layer.inputDimension, d2: layer.outputDimension, identity: layer.isIdentity,
                meanSquaredNorm: layer.leftEigenvalues.reduce(0, +), leftCondition: conditions.left,
                rightCondition: conditions.right)
        })
    if json { return try printJSON(report) }
    standardOutput(
        "\(report.basis)  ε = \(report.epsilon)  "
            + (report.sampleRows > 0 ? "from \(grouped(report.sampleRows)) examples\n" : "from given second moments\n"))
    var rows = [["layer", "d1", "d2", "mean ‖G‖²", "condition left", "right"]]
    for layer in report.layers {
        rows.append([
            layer.layer, "\(layer.d1)", "\(layer.d2)", magnitudeText(layer.meanSquaredNorm),
            layer.identity ? "identity" : magnitudeText(layer.leftCondition),
            layer.identity ? "identity" : magnitudeText(layer.rightCondition),
        ])
    }
    standardOutput(table(rows, right: [1, 2, 3, 4, 5]))
}
