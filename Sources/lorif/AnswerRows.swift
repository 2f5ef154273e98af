import Engine
import Foundation
import Interchange
import Schema

/// The name of the damping's column in a sweep; nil when all answers have the same damping.
private func dampingColumn(_ result: QueryResult) -> String? {
    guard result.dampings.count > 1 else { return nil }
    return result.dampings[0].relative == nil ? "damping" : "relative_damping"
}

/// One JSON object per result (Formats/answers.md).
func answerLines(_ result: QueryResult) -> String {
    var text = ""
    for (answer, direction, example) in results(result) {
        text +=
            "{\"query\":\(JSONText.quoted(answer.identifier)),\"direction\":\"\(direction)\",\"rank\":\(example.rank),"
        if let name = dampingColumn(result) {
            text += "\"\(name)\":\(JSONText.number(result.dampings[answer.dampingIndex].value)),"
        }
        text += "\"id\":\(JSONText.quoted(example.identifier)),\"score\":\(JSONText.number(example.score)),"
        text += "\"share\":\(shareText(answer, example)),"
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
        ((dampingColumn(result).map { [$0] } ?? []) + ["query", "direction", "rank", "id", "score", "share"]
        + layerNames.map { "layer.\($0)" } + fieldNames.map { "metadata.\($0)" })
        .map(csvField).joined(separator: ",") + "\n"
    for (answer, direction, example) in results(result) {
        var cells = [
            answer.identifier, direction, String(example.rank), example.identifier, JSONText.number(example.score),
            shareText(answer, example),
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

/// The share with six significant digits: those of a sum that may be one of estimates.
private func shareText(_ answer: QueryAnswer, _ example: RankedExample) -> String {
    JSONText.number(Double(String(format: "%.5e", answer.share(of: example))) ?? 0)
}

private func csvField(_ text: String) -> String {
    guard text.contains(where: { $0 == "," || $0 == "\"" || $0.isNewline }) else { return text }
    return "\"" + text.replacingOccurrences(of: "\"", with: "\"\"") + "\""
}
