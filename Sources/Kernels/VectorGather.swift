public import Schema

/// Rows of a vector page's payload, to be gathered into another page.
public struct VectorPart: Sendable {
    /// The whole payload of the page.
    public let payload: [UInt8]
    /// Rows of the page.
    public let rowCount: Int
    /// The rows to take, ascending.
    public let rows: [Int]

    /// Rows `rows` of a payload of `rowCount` rows.
    public init(payload: [UInt8], rowCount: Int, rows: [Int]) {
        self.payload = payload
        self.rowCount = rowCount
        self.rows = rows
    }
}

/// The payload that holds the rows of all parts, one after another: codes and scales are moved, never decoded.
///
/// Encoding is not idempotent (a scale is fitted to the numbers given), so that only moving the codes keeps every value bit for bit.
/// Payload sizes must be exact and rows in range. O(numbers).
public func gatherVectors(_ parts: [VectorPart], length: Int, encoding: Encoding) -> [UInt8] {
    let rowCount = parts.reduce(0) { $0 + $1.rows.count }
    let byteCount = vectorPayloadByteCount(rowCount: rowCount, length: length, encoding: encoding)
    var firstRow = 0
    return unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { bytes, initializedCount in
        initializedCount = byteCount
        let target = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(bytes)[..<byteCount])
        // Nibbles are put together; of rows of whole bytes only what fills up the codes is not written below.
        let written = encoding.interleavedRowCount > 1 ? 0 : rowCount * (length * encoding.bitsPerNumber / 8)
        for index in written..<byteCount { target[index] = 0 }
        for part in parts {
            precondition(
                part.payload.count
                    == vectorPayloadByteCount(rowCount: part.rowCount, length: length, encoding: encoding),
                "payload of another shape")
            precondition(part.rows.allSatisfy { $0 >= 0 && $0 < part.rowCount }, "row out of range")
            part.payload.withUnsafeBytes { source in
                let move = RowMove(
                    source: source, target: target, sourceRowCount: part.rowCount, targetRowCount: rowCount,
                    firstRow: firstRow, rows: part.rows)
                move.codes(length: length, encoding: encoding)
                if encoding.hasScale {
                    move.bytes(
                        from: source.count - 2 * part.rowCount, to: target.count - 2 * rowCount, width: 2)
                }
            }
            firstRow += part.rows.count
        }
    }
}

/// Row `rows[i]` of one payload to row `firstRow + i` of another.
private struct RowMove {
    let source: UnsafeRawBufferPointer
    let target: UnsafeMutableRawBufferPointer
    let sourceRowCount: Int
    let targetRowCount: Int
    let firstRow: Int
    let rows: [Int]

    func codes(length: Int, encoding: Encoding) {
        guard encoding.interleavedRowCount > 1 else {
            return bytes(from: 0, to: 0, width: length * encoding.bitsPerNumber / 8)
        }
        // q3 is a plane of two bits and, behind it, one of one bit.
        let planes = encoding == .q3 ? [2, 1] : [encoding.bitsPerNumber]
        var (from, to) = (0, 0)
        for bits in planes {
            let nibbleCount = (length * bits + 3) / 4
            nibbles(from: from, to: to, nibbleCount: nibbleCount)
            from += (sourceRowCount + 31) / 32 * nibbleCount * 16
            to += (targetRowCount + 31) / 32 * nibbleCount * 16
        }
    }

    /// Fixed-width rows that begin at byte offsets of source and target; runs of rows are moved at once.
    func bytes(from: Int, to: Int, width: Int) {
        guard width > 0 else { return }
        var index = 0
        while index < rows.count {
            var end = index + 1
            while end < rows.count, rows[end] == rows[end - 1] + 1 { end += 1 }
            let start = from + rows[index] * width
            unsafe UnsafeMutableRawBufferPointer(rebasing: target[(to + (firstRow + index) * width)...])
                .copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: source[start..<start + (end - index) * width]))
            index = end
        }
    }

    /// Nibbles of groups of 32 rows: byte j of the 16 bytes of a nibble holds row j (low half) and row 16 + j (high half).
    private func nibbles(from: Int, to: Int, nibbleCount: Int) {
        var index = 0
        while index < rows.count {
            let (row, newRow) = (rows[index], firstRow + index)
            let oldGroup = from + row / 32 * nibbleCount * 16
            let newGroup = to + newRow / 32 * nibbleCount * 16
            if row % 32 == 0, newRow % 32 == 0, index + 32 <= rows.count, rows[index + 31] == row + 31 {
                unsafe UnsafeMutableRawBufferPointer(rebasing: target[newGroup...])
                    .copyMemory(
                        from: UnsafeRawBufferPointer(rebasing: source[oldGroup..<oldGroup + nibbleCount * 16]))
                index += 32
                continue
            }
            let oldShift = UInt8(row % 32 / 16 * 4)
            let newShift = UInt8(newRow % 32 / 16 * 4)
            var (oldByte, newByte) = (oldGroup + row % 16, newGroup + newRow % 16)
            for _ in 0..<nibbleCount {
                // The target starts as zeros and each nibble is written once.
                unsafe target[newByte] |= (source[oldByte] >> oldShift & 15) << newShift
                oldByte += 16
                newByte += 16
            }
            index += 1
        }
    }
}
