/// Whether `a` comes before `b` in the natural order of names: runs of digits compare as numbers ("blocks.2" before "blocks.10"),
/// everything else by UTF-8 bytes. Names that differ only in leading zeros are ordered by bytes, so that the order is total.
public func naturallyPrecedes(_ a: String, _ b: String) -> Bool {
    let first = Array(a.utf8)
    let second = Array(b.utf8)
    var i = 0
    var j = 0
    while i < first.count, j < second.count {
        guard isDigit(first[i]), isDigit(second[j]) else {
            if first[i] != second[j] { return first[i] < second[j] }
            i += 1
            j += 1
            continue
        }
        let left = significantDigits(first, &i)
        let right = significantDigits(second, &j)
        if left.count != right.count { return left.count < right.count }
        for (x, y) in zip(left, right) where x != y { return x < y }
    }
    if first.count - i != second.count - j { return first.count - i < second.count - j }
    return first.lexicographicallyPrecedes(second)
}

private func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }

/// The run of digits at `position` without leading zeros; moves behind the run.
private func significantDigits(_ bytes: [UInt8], _ position: inout Int) -> ArraySlice<UInt8> {
    var start = position
    while position < bytes.count, isDigit(bytes[position]) { position += 1 }
    while start < position, bytes[start] == 0x30 { start += 1 }
    return bytes[start..<position]
}
