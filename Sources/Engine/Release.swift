/// The release of lorif that this is.
public let lorifRelease = "0.1.0"
