import Checksum
import Engine
import Foundation

/// λ, and ρ where it was asked for.
func dampingText(_ damping: DampingUsed) -> String {
    let lambdas = damping.lambdas.sorted()
    var text = damping.relative.map { "ρ = \(String(format: "%g", $0)), " } ?? ""
    if let low = lambdas.first, let high = lambdas.last {
        text += low == high ? String(format: "λ = %.4g", low) : String(format: "λ = %.4g … %.4g", low, high)
    }
    return text
}

/// What an answer rests on: method, damping, curvature, rows, bytes read, guarantee, time.
func answerFooter(_ result: QueryResult, elapsedSeconds: Double) -> [String] {
    var parts = [result.method.rawValue]
    if result.dampings.count == 1 {
        parts.append(dampingText(result.dampings[0]))
    } else if let first = result.dampings.first {
        let values = result.dampings.map { String(format: "%g", $0.value) }.joined(separator: ", ")
        parts.append("\(first.relative == nil ? "λ" : "ρ") = \(values)")
    }
    if let basis = result.basis { parts.append("whitened basis \(basis.description.prefix(12))") }
    if let curvature = result.curvature, let scope = result.scope {
        parts.append(
            "\(scope) curvature \(curvature.description.prefix(12)) of \(grouped(result.curvatureRowCount ?? 0)) rows")
    }
    parts.append("\(grouped(result.rowCount)) rows × \(grouped(result.layerNames.count)) layers")
    parts.append("\(byteText(result.plan.byteCount)) read")
    if result.unreadRowCount > 0 {
        parts.append("\(grouped(result.unreadRowCount)) rows unread")
    } else {
        parts.append(
            result.guarantee == .exact
                ? "exact" : "\(grouped(result.meter.refinedRowCount)) scored exactly, no guarantee")
    }
    parts.append(durationText(elapsedSeconds))
    return parts
}
