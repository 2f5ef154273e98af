import Files
import Format

extension PagedFileReader {
    /// Reads every byte of the file again: header, padding, pages, footer, tail.
    ///
    /// `content` gets each page that is whole, in file order; what it throws is damage too. `progress` gets the bytes read since
    /// the last call. Each damage goes to `damage`; when that returns false, verification stops. Memory: two pages.
    public func verify(
        progress: (Int) -> Void = { _ in },
        content: (_ page: Int, _ payload: [UInt8]) throws(StoreError) -> Void = { _, _ in },
        damage: (StoreError) -> Bool
    ) {
        guard check(damage, { () throws(StoreError) in try verifyHeader() }) else { return }
        progress(FileGeometry.headerByteCount)
        var end = FileGeometry.headerByteCount
        for number in footer.pages.indices {
            let entry = footer.pages[number]
            let start = end
            end = Int(entry.end)
            let goesOn = check(damage) { () throws(StoreError) in
                let bytes = try read(start..<end)
                let padding = Int(entry.offset) - start
                try expectZeros(bytes[..<padding], at: start)
                try content(number, try payload(of: number, stored: padding == 0 ? bytes : Array(bytes[padding...])))
            }
            guard goesOn else { return }
            progress(end - start)
        }
        let goesOn = check(damage) { () throws(StoreError) in
            try expectZeros(try read(end..<identity.footerOffset)[...], at: end)
            try verifyFooter()
        }
        if goesOn { progress(identity.fileLength - end) }
    }

    /// Runs a check; false when it fails and `damage` does not want to hear more.
    private func check(_ damage: (StoreError) -> Bool, _ body: () throws(StoreError) -> Void) -> Bool {
        do {
            try body()
            return true
        } catch {
            return damage(error)
        }
    }

    private func read(_ range: Range<Int>) throws(StoreError) -> [UInt8] {
        do {
            return try file.read(at: range.lowerBound, count: range.count)
        } catch {
            throw .file(error)
        }
    }

    private func expectZeros(_ bytes: ArraySlice<UInt8>, at offset: Int) throws(StoreError) {
        if let index = bytes.firstIndex(where: { $0 != 0 }) {
            throw .paddingNotZero(path: path, offset: offset + index - bytes.startIndex, found: bytes[index])
        }
    }

    /// Checks header, footer and tail, and nothing between.
    func verifyEnds() throws(StoreError) {
        try verifyHeader()
        try verifyFooter()
    }

    private func verifyHeader() throws(StoreError) {
        try judging { try Self.compare(try Self.readHeader(file, magic: footer.header.magic), footer.header) }
    }

    /// Reads footer and tail anew: they may have been damaged since the file was opened.
    private func verifyFooter() throws(StoreError) {
        try judging { _ = try Self.readFooter(file, tail: identity.tail, magic: footer.header.magic) }
    }

    private func judging(_ body: () throws -> Void) throws(StoreError) {
        do {
            try body()
        } catch let error as FileError {
            throw .file(error)
        } catch let error as FormatError {
            throw .format(path: path, error)
        } catch {
            preconditionFailure("no other error is thrown here")
        }
    }
}
