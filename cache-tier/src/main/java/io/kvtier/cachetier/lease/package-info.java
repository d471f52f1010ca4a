/** Who has pinned which pages until when. Pure: time is an argument. */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier.lease;
