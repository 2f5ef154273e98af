/// What a scan did: bytes by column, seconds by activity. Each worker has one; they are added up.
public struct ScanMeter: Sendable, Hashable {
    /// Stored bytes of factor and matrix pages read.
    public internal(set) var factorByteCount = 0
    /// Bytes of coordinates read.
    public internal(set) var coordinatesByteCount = 0
    /// Bytes read past the page cache, those between pages too.
    public internal(set) var directByteCount = 0
    /// Pages of factors and matrices read.
    public internal(set) var pageCount = 0
    /// Rows that estimates left open and that were scored again, counted for each query.
    public internal(set) var refinedRowCount = 0
    /// Seconds in reading and checking pages, over all workers.
    public internal(set) var readSeconds = 0.0
    /// Seconds in decompressing and decoding them to f32; 0 where the kernel works on codes.
    public internal(set) var decodeSeconds = 0.0
    /// Seconds in inner products.
    public internal(set) var arithmeticSeconds = 0.0
    /// Seconds in ranking, grouping and writing scores.
    public internal(set) var mergeSeconds = 0.0
    /// Seconds in bringing the queries into the form that is scored.
    public internal(set) var preparationSeconds = 0.0
    /// Seconds from the first block to the last, with the workers side by side.
    public internal(set) var elapsedSeconds = 0.0

    /// Nothing yet.
    public init() {}

    /// All bytes read.
    public var byteCount: Int { factorByteCount + coordinatesByteCount }

    /// Adds what another worker or scan did; times of scans that followed each other add up.
    mutating func add(_ other: ScanMeter) {
        factorByteCount += other.factorByteCount
        coordinatesByteCount += other.coordinatesByteCount
        directByteCount += other.directByteCount
        pageCount += other.pageCount
        refinedRowCount += other.refinedRowCount
        readSeconds += other.readSeconds
        decodeSeconds += other.decodeSeconds
        arithmeticSeconds += other.arithmeticSeconds
        mergeSeconds += other.mergeSeconds
        preparationSeconds += other.preparationSeconds
        elapsedSeconds += other.elapsedSeconds
    }

    /// The result of `body`, its time added to one of the seconds.
    mutating func timing<T>(_ activity: WritableKeyPath<ScanMeter, Double>, _ body: () throws -> T) rethrows -> T {
        let started = ContinuousClock.now
        defer { self[keyPath: activity] += (ContinuousClock.now - started) / .seconds(1) }
        return try body()
    }
}
