import Engine
import Schema

/// The answers as Markdown with tables (GitHub's dialect): a heading, the query's text as a quotation, and its examples.
func answerMarkdown(_ result: QueryResult, elapsedSeconds: Double) -> String {
    var text = ""
    for answer in result.answers {
        let damping = result.dampings.count > 1 ? " (\(dampingText(result.dampings[answer.dampingIndex])))" : ""
        text += "## \(markdownEscaped(answer.identifier))\(damping)\n\n"
        if let query = exampleText(answer.metadata) { text += "> \(markdownEscaped(query))\n\n" }
        let names = result.method.needsQueries ? ("helpful", "harmful") : ("highest", "lowest")
        var rows: [[String]] = []
        for (name, examples) in [(names.0, answer.top), (names.1, answer.bottom)] {
            for example in examples {
                rows.append([
                    name, "\(example.rank)", scoreText(example.score), percentText(answer.share(of: example)),
                    markdownEscaped(example.identifier), markdownEscaped(sourceText(example.metadata)),
                    markdownEscaped(exampleText(example.metadata) ?? ""),
                ])
            }
        }
        if !rows.isEmpty {
            text += markdownTable(["", "rank", "score", "share", "id", "source", "text"], rows, right: [1, 2, 3])
        }
        if !answer.groups.isEmpty {
            text += markdownTable(
                ["group", "examples", "sum", "mean", "highest", "in top"],
                answer.groups.map { group in
                    [
                        markdownEscaped(group.name), grouped(group.exampleCount), scoreText(Float(group.sum)),
                        scoreText(Float(group.mean)), scoreText(group.highest), grouped(group.topCount),
                    ]
                }, right: [1, 2, 3, 4, 5])
        }
    }
    return text + answerFooter(result, elapsedSeconds: elapsedSeconds).joined(separator: " · ") + "\n"
}

private func markdownTable(_ header: [String], _ rows: [[String]], right: Set<Int>) -> String {
    let rule = header.indices.map { right.contains($0) ? "---:" : "---" }
    return ([header, rule] + rows).map { "| " + $0.joined(separator: " | ") + " |\n" }.joined() + "\n"
}

/// Text on one line in which nothing is markup.
func markdownEscaped(_ text: String) -> String {
    var result = ""
    for character in singleLine(text) {
        if "\\`*_[]<>|#~&".contains(character) { result.append("\\") }
        result.append(character)
    }
    return result
}
