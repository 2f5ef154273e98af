/// Every limit of the format and of the program, in one place.
public enum Limits {
    /// Longest layer name, in UTF-8 bytes.
    public static let layerNameBytes = 1024
    /// Most layers in a store.
    public static let layerCount = 65_536
    /// Largest d1 or d2.
    public static let dimension = 1 << 20
    /// Largest d1·d2 of a layer.
    public static let gradientLength = 1 << 28
    /// Largest d1 or d2 of a layer that is whitened: its map has the square of that many numbers.
    public static let whitenedDimension = 8192
    /// Largest rank c.
    public static let rank = 4096
    /// Longest example id, in UTF-8 bytes.
    public static let identifierBytes = 4096
    /// Most rows in one factor batch.
    public static let batchRowCount = 1 << 40
    /// Longest header of a safetensors file, in bytes.
    public static let safetensorsHeaderBytes = 100_000_000
    /// Largest page, in bytes before compression.
    public static let pageBytes = 1 << 28
    /// Most rows in one segment.
    public static let segmentRowCount = 1 << 20
    /// A segment is closed once it has grown past this many bytes.
    public static let segmentBytes = 1 << 30
    /// A row block holds at most this many rows …
    public static let blockRowCount = 8192
    /// … and as many as fit in this many bytes as f32, rounded down to a power of two, but at least 32.
    public static let blockBytes = 64 << 20
    /// Largest user-metadata object of one example, in bytes.
    public static let metadataBytes = 1 << 20
    /// Most metadata fields in one segment.
    public static let metadataFieldCount = 1024
    /// Largest k of a top-k or bottom-k query.
    public static let resultCount = 1_000_000
}
