import Foundation

/// HTML, made of text that cannot be taken for markup and of elements around it.
struct Markup: ExpressibleByStringInterpolation {
    /// The HTML.
    private(set) var source: String

    /// Text: whatever it says, a browser shows it and obeys nothing of it.
    init(text: String) {
        var source = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": source += "&amp;"
            case "<": source += "&lt;"
            case ">": source += "&gt;"
            case "\"": source += "&quot;"
            case "'": source += "&#39;"
            case "\n", "\t": source.unicodeScalars.append(scalar)
            default:
                // HTML has no other control characters, and no characters that are none.
                let properties = scalar.properties
                let isShown = properties.generalCategory != .control && !properties.isNoncharacterCodePoint
                source.unicodeScalars.append(isShown ? scalar : "\u{FFFD}")
            }
        }
        self.source = source
    }

    init(stringLiteral value: String) { source = value }

    /// Literal parts are markup; what is put into them is escaped, unless it is markup itself.
    init(stringInterpolation: Interpolation) { source = stringInterpolation.source }

    struct Interpolation: StringInterpolationProtocol {
        fileprivate var source = ""

        init(literalCapacity: Int, interpolationCount: Int) {}
        mutating func appendLiteral(_ literal: String) { source += literal }
        mutating func appendInterpolation(_ markup: Markup) { source += markup.source }
        mutating func appendInterpolation(_ parts: [Markup]) { for part in parts { source += part.source } }
        mutating func appendInterpolation(_ text: String) { source += Markup(text: text).source }
        mutating func appendInterpolation(_ number: Int) { source += String(number) }
        /// A length in a drawing, to a hundredth.
        mutating func appendInterpolation(_ number: Double) {
            source += String(format: "%g", (number * 100).rounded() / 100)
        }
    }

    /// Text from elsewhere, kept apart from the direction of what surrounds it.
    static func isolated(_ text: String) -> Markup { "<bdi>\(text)</bdi>" }

    static func += (markup: inout Markup, other: Markup) { markup.source += other.source }

    static func + (markup: Markup, other: Markup) -> Markup { Markup(stringLiteral: markup.source + other.source) }
}

/// A table with a caption; columns in `right` hold numbers.
func markupTable(
    caption: Markup, header: [String], rows: [[Markup]], right: Set<Int>, label: String, kind tableKind: Markup = ""
) -> Markup {
    func kind(_ column: Int) -> Markup { right.contains(column) ? " class=\"number\"" : "" }
    let heads: [Markup] = header.enumerated().map { "<th scope=\"col\"\(kind($0))>\($1)</th>" }
    let lines: [Markup] = rows.map { row in
        let cells: [Markup] = row.enumerated().map { column, cell in
            column == 0 ? "<th scope=\"row\"\(kind(0))>\(cell)</th>" : "<td\(kind(column))>\(cell)</td>"
        }
        return "<tr>\(cells)</tr>\n"
    }
    return """
        <div class="scroll" role="region" aria-label="\(label)" tabindex="0"><table\(tableKind)>
        <caption>\(caption)</caption>
        <thead><tr>\(heads)</tr></thead>
        <tbody>
        \(lines)</tbody>
        </table></div>

        """
}
