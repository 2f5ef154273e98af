import Foundation

/// Seconds of a duration.
func seconds(_ duration: Duration) -> Double {
    Double(duration.components.seconds) + Double(duration.components.attoseconds) * 1e-18
}

/// A number with that many digits behind the point.
func decimal(_ number: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", number) }

/// 1234567 → "1,234,567".
func grouped(_ number: Int) -> String {
    let digits = Array(String(number.magnitude))
    var result = number < 0 ? "-" : ""
    for (index, digit) in digits.enumerated() {
        if index > 0, (digits.count - index) % 3 == 0 { result.append(",") }
        result.append(digit)
    }
    return result
}

/// Bytes in binary units with three digits: "2.21 KiB".
func byteText(_ count: Int) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var value = Double(count)
    var unit = 0
    while value >= 1024, unit < units.count - 1 {
        value /= 1024
        unit += 1
    }
    return unit == 0
        ? "\(count) B"
        : String(format: value < 10 ? "%.2f %@" : (value < 100 ? "%.1f %@" : "%.0f %@"), value, units[unit])
}

/// A duration for people: "0.42 s", "3 min 05 s", "2 h 10 min".
func durationText(_ seconds: Double) -> String {
    if seconds < 10 { return String(format: "%.2f s", seconds) }
    if seconds < 60 { return String(format: "%.0f s", seconds) }
    let whole = Int(seconds)
    if whole < 3600 { return String(format: "%d min %02d s", whole / 60, whole % 60) }
    return String(format: "%d h %02d min", whole / 3600, whole % 3600 / 60)
}

/// A score with four significant digits.
func scoreText(_ score: Float) -> String {
    String(format: "%+.4g", Double(score))
}

/// A share as a percentage with one decimal.
func percentText(_ share: Double) -> String {
    String(format: "%.1f %%", 100 * share)
}

/// Text on one line that a terminal shows as it is: runs of white space and control characters become one space, and what turns
/// the direction of the rest of the line is left out.
func singleLine(_ text: String) -> String {
    var result = ""
    var pendingSpace = false
    for scalar in text.unicodeScalars {
        if (0x202A...0x202E).contains(scalar.value) || (0x2066...0x2069).contains(scalar.value) { continue }
        if scalar.properties.isWhitespace || scalar.properties.generalCategory == .control {
            pendingSpace = !result.isEmpty
        } else {
            if pendingSpace { result.append(" ") }
            pendingSpace = false
            result.unicodeScalars.append(scalar)
        }
    }
    return result
}

/// Terminal columns of one character: 2 for wide East Asian characters and emoji, 0 for combining marks.
private func columnCount(_ character: Character) -> Int {
    guard let scalar = character.unicodeScalars.first else { return 0 }
    // A variation selector asks for the picture, and flags are pairs of letters.
    if scalar.properties.isEmojiPresentation || character.unicodeScalars.contains("\u{FE0F}") { return 2 }
    switch scalar.value {
    case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F,
        0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F, 0x1F680...0x1F6FF, 0x1F900...0x1F9FF, 0x20000...0x3FFFD:
        return 2
    default:
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format, .control: return 0
        default: return 1
        }
    }
}

/// Terminal columns of a text.
func displayWidth(_ text: String) -> Int { text.reduce(0) { $0 + columnCount($1) } }

/// Parts joined to lines of at most `width` columns, broken between parts, and between words where a part alone is wider.
func wrapped(_ parts: [String], separator: String, to width: Int) -> [String] {
    var lines: [String] = []
    for part in parts {
        if let last = lines.last, displayWidth(last) + displayWidth(separator) + displayWidth(part) <= width {
            lines[lines.count - 1] = last + separator + part
        } else {
            let words = part.split(separator: " ").map(String.init)
            lines += displayWidth(part) > width && words.count > 1 ? wrapped(words, separator: " ", to: width) : [part]
        }
    }
    return lines
}

/// The text cut to `width` terminal columns, with an ellipsis where it was cut.
func truncated(_ text: String, to width: Int) -> String {
    var result = ""
    var used = 0
    for character in text {
        let columns = columnCount(character)
        if used + columns > width {
            while used > width - 1, let last = result.popLast() { used -= columnCount(last) }
            return result + "…"
        }
        result.append(character)
        used += columns
    }
    return result
}

/// The text with spaces on the right (or left) up to `width` terminal columns.
func padded(_ text: String, to width: Int, right: Bool = false) -> String {
    let missing = width - displayWidth(text)
    guard missing > 0 else { return text }
    let spaces = String(repeating: " ", count: missing)
    return right ? spaces + text : text + spaces
}

/// Rows of cells as aligned columns, two spaces apart; columns in `right` are flush right.
func table(_ rows: [[String]], right: Set<Int> = []) -> String {
    var widths: [Int] = []
    for row in rows {
        for (column, cell) in row.enumerated() {
            let width = displayWidth(cell)
            if column < widths.count { widths[column] = max(widths[column], width) } else { widths.append(width) }
        }
    }
    var result = ""
    for row in rows {
        var line = ""
        for (column, cell) in row.enumerated() {
            if column > 0 { line += "  " }
            line += padded(cell, to: widths[column], right: right.contains(column))
        }
        while line.last == " " { line.removeLast() }
        result += line + "\n"
    }
    return result
}

extension String {
    /// A number with one decimal.
    init(oneDecimal value: Double) {
        self.init(format: "%.1f", value)
    }
}

/// A magnitude with four significant digits.
func magnitudeText(_ value: Double) -> String {
    String(format: "%.4g", value)
}
