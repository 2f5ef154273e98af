import Files

/// Checks one committed state of a data file, given what liblmdb says it will read.
enum SnapshotCheck {
    /// What the check found.
    enum Outcome {
        case accepted
        /// Commits have overtaken the transaction since it began; begin another.
        case overtaken
    }

    /// Both meta pages, checked; the second lies where the first one's page size puts it.
    static func readMetaPages(_ file: ReadableFile) throws(LMDBError) -> (MetaPage, MetaPage) {
        func bytes(at offset: Int) throws(LMDBError) -> [UInt8] {
            do { return try file.read(at: offset, count: MetaPage.byteCount) } catch { throw .file(error) }
        }
        guard file.byteCount >= MetaPage.byteCount else {
            throw .damaged(path: file.path, page: 0, rule: "two meta pages", found: "\(file.byteCount) bytes")
        }
        let first = try MetaPage(bytes(at: 0), number: 0, path: file.path)
        guard file.byteCount >= 2 * first.pageBytes else {
            throw .damaged(path: file.path, page: 1, rule: "two meta pages", found: "\(file.byteCount) bytes")
        }
        let second = try MetaPage(bytes(at: first.pageBytes), number: 1, path: file.path)
        guard first.pageBytes == second.pageBytes else {
            throw .damaged(
                path: file.path, page: 1, rule: "page size \(first.pageBytes)", found: "\(second.pageBytes)")
        }
        return (first, second)
    }

    /// Checks everything that a transaction on the state of `transaction` may touch.
    ///
    /// The caller's reader slot (or writer mutex) keeps the pages of that state and of the one before from being reused.
    static func check(path: String, transaction: UInt64) throws(LMDBError) -> Outcome {
        let file: ReadableFile
        do { file = try ReadableFile(path: path) } catch { throw .file(error) }
        let (first, second) = try readMetaPages(file)
        let (chosen, other) = transaction % 2 == 0 ? (first, second) : (second, first)
        if chosen.transaction > transaction { return .overtaken }
        guard chosen.transaction == transaction else {
            throw .damaged(
                path: path, page: transaction % 2, rule: "transaction \(transaction)", found: "\(chosen.transaction)")
        }
        var followsPages = false
        if other.transaction != transaction &+ 1 {
            // Commits alternate between the meta pages, so the other one is the state before. If the chosen page is really
            // the older one, the newer one's number was changed: then its free list names a transaction from its future.
            let isPredecessor = other.transaction &+ 1 == transaction || (transaction == 0 && other.transaction == 0)
            guard isPredecessor else {
                if other.transaction > transaction { return .overtaken }
                throw .damaged(
                    path: path, page: 1 - transaction % 2, rule: "transaction \(transaction &- 1)",
                    found: "\(other.transaction)")
            }
            var walker = PageWalker(file: file, meta: other)
            try walker.checkFreeListAges()
            followsPages = other.mainTree.depth > 0 || other.freeTree.depth > 0
        }
        var walker = PageWalker(file: file, meta: chosen)
        try walker.checkAll(followsPages: followsPages)
        return .accepted
    }
}
