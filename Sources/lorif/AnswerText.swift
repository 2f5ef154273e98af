import Checksum
import Engine
import Foundation
import Interchange
import Schema

/// The answers for reading: per query its text, then helpful and harmful examples, then how they were computed.
func answerTable(_ result: QueryResult, elapsedSeconds: Double, width: Int, scoresPath: String?) -> String {
    var text = ""
    var heading = -1
    for answer in result.answers {
        if result.dampings.count > 1, answer.dampingIndex != heading {
            heading = answer.dampingIndex
            text += "— \(dampingText(result.dampings[heading])) —\n\n"
        }
        if result.method.needsQueries {
            text += "query \(answer.identifier)\n"
            if let snippet = snippet(of: answer.metadata) {
                text += "  " + truncated("“\(snippet)”", to: width - 2) + "\n"
            }
        }
        if !answer.top.isEmpty {
            text += result.method.needsQueries ? "  most helpful\n" : "highest self-influence\n"
            text += exampleRows(answer.top, width: width)
        }
        if !answer.bottom.isEmpty {
            text += result.method.needsQueries ? "  most harmful\n" : "lowest self-influence\n"
            text += exampleRows(answer.bottom, width: width)
        }
        if !answer.groups.isEmpty { text += groupRows(answer.groups) }
        if !answer.top.isEmpty || !answer.bottom.isEmpty || !answer.groups.isEmpty { text += "\n" }
    }
    text += footer(result, elapsedSeconds: elapsedSeconds) + "\n"
    if let scoresPath {
        text += "scores of \(grouped(result.plan.queryCount)) × \(grouped(result.rowCount)) pairs in \(scoresPath)\n"
    }
    return text
}

private func exampleRows(_ examples: [RankedExample], width: Int) -> String {
    let cells = examples.map { example in
        [
            "\(example.rank)", scoreText(example.score), truncated(example.identifier, to: 40),
            truncated(sourceText(example.metadata), to: 20),
        ]
    }
    let lines = table(cells.map { [""] + $0 }, right: [1, 2]).split(separator: "\n", omittingEmptySubsequences: false)
    let used = lines.map { $0.reduce(0) { count, _ in count + 1 } }.max() ?? 0
    var text = ""
    for (line, example) in zip(lines, examples) {
        defer { text += contributionLine(example.contributions, width: width) }
        guard let snippet = snippet(of: example.metadata), width - used - 2 >= 16 else {
            text += line + "\n"
            continue
        }
        text += padded(String(line), to: used) + "  " + truncated(snippet, to: width - used - 2) + "\n"
    }
    return text
}

/// The groups' sums, those with the largest first.
private func groupRows(_ groups: [GroupScore]) -> String {
    let shown = groups.prefix(20)
    let cells =
        [["", "group", "examples", "sum", "mean", "highest", "in top"]]
        + shown.map { group in
            [
                "", truncated(singleLine(group.name), to: 40), grouped(group.exampleCount),
                scoreText(Float(group.sum)), scoreText(Float(group.mean)), scoreText(group.highest),
                grouped(group.topCount),
            ]
        }
    let rest =
        groups.count > shown.count ? "  … \(grouped(groups.count - shown.count)) more; --format csv has all\n" : ""
    return table(cells, right: [2, 3, 4, 5, 6]) + rest
}

/// What the layers add to a score, the largest parts first.
private func contributionLine(_ contributions: [LayerContribution], width: Int) -> String {
    guard !contributions.isEmpty else { return "" }
    let parts = contributions.sorted { abs($0.score) > abs($1.score) }
        .map { "\(truncated($0.name, to: 32)) \(scoreText($0.score))" }
    return truncated("       = " + parts.joined(separator: ", "), to: width) + "\n"
}

/// The field that names where an example comes from.
private func sourceText(_ metadata: MetadataRecord?) -> String {
    guard case .string(let source)? = metadata?["source"] else { return "" }
    return singleLine(source)
}

/// The text to show for an example: its `text`, or the first string field that is not its source.
private func snippet(of metadata: MetadataRecord?) -> String? {
    guard let metadata else { return nil }
    if case .string(let text)? = metadata["text"] { return singleLine(text) }
    for field in metadata.fields where field.name != "source" {
        if case .string(let text) = field.value { return singleLine(text) }
    }
    return nil
}

private func dampingText(_ damping: DampingUsed) -> String {
    let lambdas = damping.lambdas.sorted()
    var text = damping.relative.map { "ρ = \(String(format: "%g", $0)), " } ?? ""
    if let low = lambdas.first, let high = lambdas.last {
        text += low == high ? String(format: "λ = %.4g", low) : String(format: "λ = %.4g … %.4g", low, high)
    }
    return text
}

/// The name of the damping's column in a sweep; nil when all answers have the same damping.
private func dampingColumn(_ result: QueryResult) -> String? {
    guard result.dampings.count > 1 else { return nil }
    return result.dampings[0].relative == nil ? "damping" : "relative_damping"
}

/// One line on method, damping, curvature, rows, bytes and time.
private func footer(_ result: QueryResult, elapsedSeconds: Double) -> String {
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
    if result.guarantee == .none {
        parts.append("\(grouped(result.meter.refinedRowCount)) scored exactly, no guarantee")
    }
    parts.append(durationText(elapsedSeconds))
    return parts.joined(separator: " · ")
}

/// One JSON object per result: query, direction, rank, id, score, metadata.
func answerLines(_ result: QueryResult) throws -> String {
    var text = ""
    for (answer, direction, example) in results(result) {
        text +=
            "{\"query\":\(JSONText.quoted(answer.identifier)),\"direction\":\"\(direction)\",\"rank\":\(example.rank),"
        if let name = dampingColumn(result) {
            text += "\"\(name)\":\(JSONText.number(result.dampings[answer.dampingIndex].value)),"
        }
        text += "\"id\":\(JSONText.quoted(example.identifier)),\"score\":\(JSONText.number(example.score)),"
        if !example.contributions.isEmpty {
            let parts = example.contributions.map { "\(JSONText.quoted($0.name)):\(JSONText.number($0.score))" }
            text += "\"layers\":{\(parts.joined(separator: ","))},"
        }
        text += "\"metadata\":\(example.metadata.map { JSONText.object($0) } ?? "null")}\n"
    }
    for answer in result.answers {
        for (place, group) in answer.groups.enumerated() {
            text += "{\"query\":\(JSONText.quoted(answer.identifier)),\"direction\":\"group\",\"rank\":\(place + 1),"
            if let name = dampingColumn(result) {
                text += "\"\(name)\":\(JSONText.number(result.dampings[answer.dampingIndex].value)),"
            }
            text += "\"group\":\(JSONText.quoted(group.name)),\"examples\":\(group.exampleCount),"
            text += "\"sum\":\(JSONText.number(group.sum)),\"mean\":\(JSONText.number(group.mean)),"
            text += "\"highest\":\(JSONText.number(group.highest)),\"top\":\(group.topCount)}\n"
        }
    }
    return text
}

/// Comma-separated results with a header line; metadata fields follow as columns, in order of first appearance.
func answerCSV(_ result: QueryResult) -> String {
    if result.answers.contains(where: { !$0.groups.isEmpty }) { return groupsCSV(result) }
    let layerNames = result.answers.lazy.flatMap { $0.top + $0.bottom }.first?.contributions.map(\.name) ?? []
    var fieldNames: [String] = []
    var known: Set<String> = []
    for (_, _, example) in results(result) {
        for field in example.metadata?.fields ?? [] where known.insert(field.name).inserted {
            fieldNames.append(field.name)
        }
    }
    var text =
        ((dampingColumn(result).map { [$0] } ?? []) + ["query", "direction", "rank", "id", "score"]
        + layerNames.map { "layer.\($0)" } + fieldNames.map { "metadata.\($0)" })
        .map(csvField).joined(separator: ",") + "\n"
    for (answer, direction, example) in results(result) {
        var cells = [
            answer.identifier, direction, String(example.rank), example.identifier, JSONText.number(example.score),
        ]
        if dampingColumn(result) != nil {
            cells.insert(JSONText.number(result.dampings[answer.dampingIndex].value), at: 0)
        }
        cells += example.contributions.map { JSONText.number($0.score) }
        for name in fieldNames { cells.append(example.metadata?[name]?.text ?? "") }
        text += cells.map(csvField).joined(separator: ",") + "\n"
    }
    return text
}

private func results(_ result: QueryResult) -> [(answer: QueryAnswer, direction: String, example: RankedExample)] {
    result.answers.flatMap { answer in
        answer.top.map { (answer, "top", $0) } + answer.bottom.map { (answer, "bottom", $0) }
    }
}

/// The groups of every query, instead of ranked examples.
private func groupsCSV(_ result: QueryResult) -> String {
    let damping = dampingColumn(result)
    let names = ["query", "rank", "group", "examples", "sum", "mean", "highest", "top"]
    var text = ((damping.map { [$0] } ?? []) + names).joined(separator: ",") + "\n"
    for answer in result.answers {
        for (place, group) in answer.groups.enumerated() {
            var cells = [
                answer.identifier, String(place + 1), group.name, String(group.exampleCount),
                JSONText.number(group.sum), JSONText.number(group.mean), JSONText.number(group.highest),
                String(group.topCount),
            ]
            if damping != nil { cells.insert(JSONText.number(result.dampings[answer.dampingIndex].value), at: 0) }
            text += cells.map(csvField).joined(separator: ",") + "\n"
        }
    }
    return text
}

private func csvField(_ text: String) -> String {
    guard text.contains(where: { $0 == "," || $0 == "\"" || $0.isNewline }) else { return text }
    return "\"" + text.replacingOccurrences(of: "\"", with: "\"\"") + "\""
}
